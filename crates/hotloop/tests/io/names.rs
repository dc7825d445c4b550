//! Names of addresses.

use hotloop::asyncio::{Error, NameFlags};

use crate::{Outcome, on_each};

const NUMERIC: NameFlags = NameFlags {
    numeric_host: true,
    numeric_service: true,
    name_required: false,
    datagram: false,
    no_domain: false,
};

#[test]
fn an_address_is_named_by_its_numbers_where_that_is_asked_for() -> Outcome {
    on_each(|event_loop| async move {
        let named = event_loop
            .getnameinfo(([127, 0, 0, 1], 8080).into(), NUMERIC)
            .await?;
        assert_eq!(named, ("127.0.0.1".to_owned(), "8080".to_owned()));
        let named = event_loop.getnameinfo("[::1]:53".parse()?, NUMERIC).await?;
        assert_eq!(named, ("::1".to_owned(), "53".to_owned()));
        Ok(())
    })
}

#[test]
fn what_contradicts_itself_is_an_error_in_the_resolvers_words() -> Outcome {
    on_each(|event_loop| async move {
        let flags = NameFlags {
            name_required: true,
            ..NUMERIC
        };
        let refused = event_loop.getnameinfo(([127, 0, 0, 1], 80).into(), flags).await;
        assert!(matches!(refused, Err(Error::Io(error)) if !error.to_string().is_empty()));
        Ok(())
    })
}
