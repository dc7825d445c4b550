//! `getaddrinfo` for hosts that are addresses already: no resolver, no thread.
//!
//! The measure is the C library's `getaddrinfo` as Python's `socket` module calls it: where [`literal`] answers, it
//! answers the same, entry by entry; where it is not certain to, it answers nothing and the caller asks the resolver.
//! What is written here was found by asking glibc (2.36), so with another C library nothing is answered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The type of stream sockets.
pub const STREAM: i32 = libc::SOCK_STREAM;

/// The type of datagram sockets.
pub const DATAGRAM: i32 = libc::SOCK_DGRAM;

/// What is asked. The numbers are those of the C library: 0 leaves a choice open.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// An address, perhaps with a zone (`fe80::1%eth0`); `None` stands for this machine.
    pub host: Option<&'a str>,
    /// The port.
    pub port: Port<'a>,
    /// `AF_UNSPEC`, `AF_INET` or `AF_INET6`; nothing is answered for others.
    pub family: i32,
    /// 0, `SOCK_STREAM`, `SOCK_DGRAM` or `SOCK_RAW`; nothing is answered for others.
    pub socktype: i32,
    /// 0 or a protocol that belongs to the type.
    pub proto: i32,
    /// Any of `AI_PASSIVE`, `AI_NUMERICHOST` and `AI_NUMERICSERV`; nothing is answered for others.
    pub flags: i32,
}

/// A port as a program names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port<'a> {
    /// Not at all.
    Unset,
    /// By a number, which may be none of a port.
    Number(i64),
    /// By digits, or by the name of a service, which only the resolver knows.
    Text(&'a str),
}

/// An entry of the answer. Its canonical name is empty: whoever asks for one is sent to the resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// `AF_INET` or `AF_INET6`, as the address is.
    pub family: i32,
    /// `SOCK_STREAM`, `SOCK_DGRAM` or `SOCK_RAW`.
    pub socktype: i32,
    /// The protocol.
    pub proto: i32,
    /// The address and port.
    pub address: SocketAddr,
}

/// Answers for a literal address what `getaddrinfo` would: entries of one address, at least one; `None` if that is for the
/// resolver to say, errors too.
#[must_use]
pub fn literal(query: &Query<'_>) -> Option<Vec<Resolved>> {
    if !cfg!(glibc) || query.flags & !(libc::AI_PASSIVE | libc::AI_NUMERICHOST | libc::AI_NUMERICSERV) != 0 {
        return None;
    }
    let port = port(query.port)?;
    let address = match query.host {
        Some(host) => address(host, port.unwrap_or(0))?,
        None => this_machine(query.family, query.flags & libc::AI_PASSIVE != 0, port?)?,
    };
    let family = match address {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    if query.family != libc::AF_UNSPEC && query.family != family {
        return None;
    }
    let resolved = |&(socktype, proto): &(i32, i32)| Resolved {
        family,
        socktype,
        proto,
        address,
    };
    let raw = [(libc::SOCK_RAW, query.proto)];
    let kinds = match (query.socktype, query.proto) {
        (0, 0) => &KINDS[..],
        (0 | libc::SOCK_STREAM, libc::IPPROTO_TCP) | (libc::SOCK_STREAM, 0) => &KINDS[..1],
        (0 | libc::SOCK_DGRAM, libc::IPPROTO_UDP) | (libc::SOCK_DGRAM, 0) => &KINDS[1..2],
        // A raw socket knows no ports: naming one is an error.
        (libc::SOCK_RAW, _) if port.is_none() => &raw,
        _ => return None,
    };
    Some(kinds.iter().map(resolved).collect())
}

/// An address as the C library writes it (`inet_ntop`), which is what Python's address tuples hold. It differs from
/// Rust's own text where 96 zero bits lead (`::1.2.3.4`, not `::102:304`).
#[must_use]
pub fn text(address: IpAddr) -> String {
    match address {
        IpAddr::V6(address) => match address.segments() {
            [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
                format!("::{}", Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
            }
            _ => address.to_string(),
        },
        IpAddr::V4(address) => address.to_string(),
    }
}

/// Types and protocols in the order in which a choice left open is answered.
const KINDS: [(i32, i32); 3] = [
    (libc::SOCK_STREAM, libc::IPPROTO_TCP),
    (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
    (libc::SOCK_RAW, 0),
];

/// The number of a port, and within it whether there is one; `None` if that is not certain.
fn port(port: Port<'_>) -> Option<Option<u16>> {
    match port {
        Port::Unset => Some(None),
        Port::Number(number) => u16::try_from(number).ok().map(Some),
        Port::Text(text) => decimal(text)?.try_into().ok().map(Some),
    }
}

/// The address that a host's text is.
fn address(host: &str, port: u16) -> Option<SocketAddr> {
    let (address, zone) = match host.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (host, None),
    };
    // What these two accept, the C library accepts too and reads in the same way. It also takes `127.1`, `0x7f.0.0.1`
    // and `010.0.0.1`, which the resolver may explain.
    match (address.parse().ok()?, zone) {
        (IpAddr::V4(address), None) => Some(SocketAddrV4::new(address, port).into()),
        (IpAddr::V4(_), Some(_)) => None,
        (IpAddr::V6(address), None) => Some(SocketAddrV6::new(address, port, 0, 0).into()),
        (IpAddr::V6(address), Some(zone)) => {
            Some(SocketAddrV6::new(address, port, 0, scope(address, zone)?).into())
        }
    }
}

/// The scope that a zone names: by the name of an interface where the address is of one link, else by its number.
fn scope(address: Ipv6Addr, zone: &str) -> Option<u32> {
    let of_a_link = address.is_unicast_link_local()
        // Interface-local and link-local multicast.
        || (address.is_multicast() && matches!(address.octets()[1] & 0xf, 1 | 2));
    if of_a_link && let Some(index) = interface(zone) {
        return Some(index);
    }
    decimal(zone)
}

/// The index of a network interface; `None` if there is none of that name.
#[cfg(linux)]
fn interface(name: &str) -> Option<u32> {
    use rustix::net::{AddressFamily, SocketType, netdevice};

    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok()?;
    netdevice::name_to_index(socket, name).ok()
}

/// Elsewhere nothing is answered that this would be needed for: see [`literal`].
#[cfg(not(linux))]
fn interface(_: &str) -> Option<u32> {
    None
}

/// A number in plain decimal digits: no sign, no space, no leading zeros.
fn decimal(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// This machine, to connect to or, `passive`ly, to listen on. Without a family there are two, and which of them comes
/// first is for the resolver's rules to say.
fn this_machine(family: i32, passive: bool, port: u16) -> Option<SocketAddr> {
    let address: IpAddr = match (family, passive) {
        (libc::AF_INET, false) => Ipv4Addr::LOCALHOST.into(),
        (libc::AF_INET, true) => Ipv4Addr::UNSPECIFIED.into(),
        (libc::AF_INET6, false) => Ipv6Addr::LOCALHOST.into(),
        (libc::AF_INET6, true) => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(all(test, glibc))]
mod tests {
    use super::*;

    const QUERY: Query<'_> = Query {
        host: Some("127.0.0.1"),
        port: Port::Number(80),
        family: libc::AF_UNSPEC,
        socktype: libc::SOCK_STREAM,
        proto: 0,
        flags: 0,
    };

    /// The one address of a host, as text.
    fn one(host: &str) -> Option<String> {
        let answer = literal(&Query {
            host: Some(host),
            ..QUERY
        })?;
        assert_eq!(answer.len(), 1);
        assert_eq!((answer[0].socktype, answer[0].proto), KINDS[0]);
        Some(answer[0].address.to_string())
    }

    /// The types and protocols of an answer.
    fn kinds(query: &Query<'_>) -> Option<Vec<(i32, i32)>> {
        let answer = literal(query)?;
        Some(answer.iter().map(|entry| (entry.socktype, entry.proto)).collect())
    }

    #[test]
    fn addresses_are_answered() {
        for host in ["127.0.0.1", "0.0.0.0", "255.255.255.255"] {
            assert_eq!(one(host), Some(format!("{host}:80")));
        }
        for host in [
            "::",
            "::1",
            "2001:db8::1",
            "1:2:3:4:5:6:7:8",
            "::ffff:1.2.3.4",
            "::1%1",
            "2001:db8::1%7",
        ] {
            assert_eq!(one(host), Some(format!("[{host}]:80")));
        }
        assert_eq!(one("1:2:3:4:5:6:7::").as_deref(), Some("[1:2:3:4:5:6:7:0]:80"));
        assert_eq!(
            one("fe80:0::1%4294967295").as_deref(),
            Some("[fe80::1%4294967295]:80")
        );
        assert_eq!(one("::1%0").as_deref(), Some("[::1]:80"));
    }

    #[test]
    fn a_name_of_an_interface_is_a_zone_of_one_link() {
        let Some(index) = interface("lo") else {
            // A sandbox without network interfaces: there is none to name.
            assert_eq!(one("fe80::1%lo"), None);
            return;
        };
        for host in ["fe80::1", "febf::1", "ff02::1", "ff01::1", "ff12::1"] {
            assert_eq!(one(&format!("{host}%lo")), Some(format!("[{host}%{index}]:80")));
        }
        for host in ["::1", "2001:db8::1", "ff05::1", "fec0::1"] {
            assert_eq!(one(&format!("{host}%lo")), None);
        }
    }

    #[test]
    fn what_is_no_plain_address_is_for_the_resolver() {
        let names = [
            "localhost",
            "",
            "example.org",
            ":",
            "*",
            "[::1]",
            "::1%",
            "%lo",
            "fe80::1%no such",
        ];
        let numbers = [
            "1",
            "127.1",
            "1.2.3",
            "01.2.3.4",
            "0x1.2.3.4",
            "1.2.3.256",
            "1.2.3.4.5",
            "1.2.3.4.",
        ];
        let spaces = [
            "1.2.3.4 ",
            " 1.2.3.4",
            "1.2.3.4\n",
            "::1 ",
            " ::1",
            "1.2.3.4\0",
            "::1\0",
            "fe80::1% 1",
        ];
        let groups = [
            "1:2:3:4::5:6:7:8",
            "00001::",
            "::g",
            "1::2::3",
            "::1.2.3",
            "::1.2.3.04",
        ];
        let zones = [
            "1.2.3.4%1",
            "::1%01",
            "::1%+1",
            "::1%-1",
            "::1%1x",
            "::1%4294967296",
            "::1%1%1",
        ];
        for host in [&names[..], &numbers, &spaces, &groups, &zones].concat() {
            assert_eq!(one(host), None, "{host:?}");
        }
    }

    #[test]
    fn addresses_are_written_as_the_c_library_does() {
        let same = [
            "::",
            "::1",
            "::ffff",
            "::ffff:1.2.3.4",
            "1::",
            "1:0:0:2::3",
            "1:2:3:4:5:6:0:8",
            "1.2.3.4",
        ];
        for address in same {
            assert_eq!(address.parse().ok().map(text).as_deref(), Some(address));
        }
        for (address, written) in [
            ("::1:0", "::0.1.0.0"),
            ("::6:e", "::0.6.0.14"),
            ("::1:2:3", "::1:2:3"),
        ] {
            assert_eq!(address.parse().ok().map(text).as_deref(), Some(written));
        }
    }

    #[test]
    fn ports_are_numbers_of_ports() {
        fn port(port: Port<'_>) -> Option<u16> {
            literal(&Query { port, ..QUERY }).map(|answer| answer[0].address.port())
        }
        assert_eq!(port(Port::Unset), Some(0));
        for number in [0, 1, 80, 65535] {
            assert_eq!(port(Port::Number(number.into())), Some(number));
            assert_eq!(port(Port::Text(&number.to_string())), Some(number));
        }
        for number in [-1, 65536, i64::MIN, i64::MAX] {
            assert_eq!(port(Port::Number(number)), None);
            assert_eq!(port(Port::Text(&number.to_string())), None);
        }
        for text in [
            "",
            "http",
            "080",
            "+80",
            " 80",
            "80 ",
            "0x50",
            "99999999999",
            "8\0",
            "٨٠",
        ] {
            assert_eq!(port(Port::Text(text)), None, "{text:?}");
        }
    }

    #[test]
    fn a_choice_left_open_is_answered_in_order() {
        let (stream, datagram, raw) = (KINDS[0], KINDS[1], KINDS[2]);
        let any = Query { socktype: 0, ..QUERY };
        for host in ["127.0.0.1", "::1"] {
            let any = Query {
                host: Some(host),
                ..any
            };
            assert_eq!(kinds(&any), Some(vec![stream, datagram, raw]));
            for kind in [stream, datagram] {
                let (socktype, proto) = kind;
                assert_eq!(kinds(&Query { socktype, ..any }), Some(vec![kind]));
                assert_eq!(kinds(&Query { proto, ..any }), Some(vec![kind]));
                assert_eq!(
                    kinds(&Query {
                        socktype,
                        proto,
                        ..any
                    }),
                    Some(vec![kind])
                );
            }
        }
    }

    #[test]
    fn a_raw_socket_has_no_port() {
        let raw = Query {
            socktype: libc::SOCK_RAW,
            ..QUERY
        };
        assert_eq!(kinds(&raw), None);
        for proto in [0, libc::IPPROTO_ICMP, 255] {
            let port = Port::Unset;
            assert_eq!(
                kinds(&Query { proto, port, ..raw }),
                Some(vec![(libc::SOCK_RAW, proto)])
            );
        }
    }

    #[test]
    fn odd_combinations_are_for_the_resolver() {
        let (stream, datagram) = (libc::SOCK_STREAM, libc::SOCK_DGRAM);
        let odd = [
            (stream, 17),
            (datagram, 6),
            (stream, 132),
            (0, 1),
            (0, 132),
            (5, 0),
            (4, 0),
            (-1, 0),
            (0, -1),
        ];
        for (socktype, proto) in odd {
            assert_eq!(
                kinds(&Query {
                    socktype,
                    proto,
                    ..QUERY
                }),
                None
            );
        }
        for flags in [
            libc::AI_CANONNAME,
            libc::AI_ADDRCONFIG,
            libc::AI_V4MAPPED | libc::AI_PASSIVE,
            -1,
        ] {
            assert_eq!(kinds(&Query { flags, ..QUERY }), None);
        }
        for family in [libc::AF_INET6, libc::AF_UNIX, -1] {
            assert_eq!(kinds(&Query { family, ..QUERY }), None);
        }
        let host = Some("::1");
        let family = libc::AF_INET;
        assert_eq!(
            kinds(&Query {
                host,
                family,
                ..QUERY
            }),
            None
        );
    }

    #[test]
    fn no_host_is_this_machine() {
        let numeric = libc::AI_NUMERICHOST | libc::AI_NUMERICSERV;
        let address = |family, flags, port| {
            let query = Query {
                host: None,
                family,
                flags,
                port,
                ..QUERY
            };
            literal(&query).map(|answer| answer[0].address.to_string())
        };
        let port = Port::Text("80");
        for flags in [0, numeric] {
            let passive = flags | libc::AI_PASSIVE;
            assert_eq!(
                address(libc::AF_INET, flags, port).as_deref(),
                Some("127.0.0.1:80")
            );
            assert_eq!(
                address(libc::AF_INET, passive, port).as_deref(),
                Some("0.0.0.0:80")
            );
            assert_eq!(address(libc::AF_INET6, flags, port).as_deref(), Some("[::1]:80"));
            assert_eq!(address(libc::AF_INET6, passive, port).as_deref(), Some("[::]:80"));
            assert_eq!(
                address(libc::AF_UNSPEC, passive, port),
                None,
                "two, in an order that is configured"
            );
            assert_eq!(address(libc::AF_INET, flags, Port::Unset), None, "an error");
        }
    }
}
