//! What is said on a connection: the contract between a client and a protocol.

/// One request after the other, and the check of each answer. No input or output happens here.
pub(crate) trait Exchange {
    /// Makes the next request the current one.
    fn advance(&mut self);

    /// The bytes of the current request.
    fn request(&self) -> &[u8];

    /// Takes bytes that came from the server.
    ///
    /// # Errors
    ///
    /// `Wrong` when they cannot belong to a right answer; the connection is of no use after that.
    fn receive(&mut self, bytes: &[u8]) -> Result<Progress, Wrong>;
}

/// How far the answer to the current request is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Progress {
    Partial,
    /// As with `Partial`, and a part of it is there that counts as an exchange by itself.
    Part,
    /// The answer is complete and right.
    Complete,
}

/// Why an answer was wrong, for a person.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Wrong(pub(crate) String);
