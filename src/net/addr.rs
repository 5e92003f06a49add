//! Addresses that a node listens on. Never a name lookup: hosts are numeric.
//!
//! | text | meaning |
//! |---|---|
//! | `1.2.3.4:9001`, `[::1]:9001` | that address and port; port 0 lets the kernel choose |
//! | `1.2.3.4`, `::1` | port 8080 |
//! | `127.1:9001` | short form: the last number fills the remaining bytes, so 127.0.0.1 |
//! | `@name`, `@` | abstract Unix socket; without a name the kernel chooses one |
//!
//! All of these mean the same in C. C also takes some that can only be mistakes, which are refused here:
//! ports above 65535 (it wraps them), an absent port after the colon (it takes 0), blanks, octal and
//! hexadecimal numbers, and a number without a dot (an IPv4 address to it).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Port of an address that names none.
pub const DEFAULT_PORT: u16 = 8080;

/// Longest name of an abstract Unix socket: the 108 bytes of a Unix address without the NUL in front.
pub const ABSTRACT_NAME_MAX: usize = 107;

/// Where a node listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindAddress {
    /// A TCP port.
    Tcp(SocketAddr),
    /// An abstract Unix socket, for this process only.
    Abstract(String),
    /// An abstract Unix socket whose name the kernel chooses.
    Autobind,
}

/// A text that is no address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid address \"{text}\": {problem}; expected IPV4:PORT, [IPV6]:PORT, a numeric IPV4 or IPV6 \
     address (port 8080), @NAME or @"
)]
pub struct AddressError {
    text: String,
    problem: &'static str,
}

impl FromStr for BindAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<BindAddress, AddressError> {
        parse(text).map_err(|problem| AddressError { text: text.to_owned(), problem })
    }
}

fn parse(text: &str) -> Result<BindAddress, &'static str> {
    if let Some(name) = text.strip_prefix('@') {
        return match name.len() {
            0 => Ok(BindAddress::Autobind),
            1..=ABSTRACT_NAME_MAX => Ok(BindAddress::Abstract(name.to_owned())),
            _ => Err("the name after @ is longer than 107 bytes"),
        };
    }
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once("]:").ok_or("no \"]:\" after the opening bracket")?;
        SocketAddr::new(parse_host(host)?, parse_port(port)?)
    } else if let Ok(host) = text.parse::<Ipv6Addr>() {
        SocketAddr::new(host.into(), DEFAULT_PORT)
    } else if let Some((host, port)) = text.split_once(':') {
        SocketAddr::new(parse_ipv4(host)?.into(), parse_port(port)?)
    } else {
        SocketAddr::new(parse_ipv4(text)?.into(), DEFAULT_PORT)
    };
    Ok(BindAddress::Tcp(address))
}

fn parse_host(host: &str) -> Result<IpAddr, &'static str> {
    match host.parse::<Ipv6Addr>() {
        Ok(host) => Ok(host.into()),
        Err(_) => parse_ipv4(host).map(IpAddr::from),
    }
}

fn parse_port(port: &str) -> Result<u16, &'static str> {
    // The standard parser would take a sign.
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err("the port is not a decimal number");
    }
    port.parse().map_err(|_| "the port is not a number from 0 to 65535")
}

fn parse_ipv4(host: &str) -> Result<Ipv4Addr, &'static str> {
    const PROBLEM: &str = "the host is not a numeric address";
    let parts: Vec<u64> = host.split('.').map(parse_decimal).collect::<Option<_>>().ok_or(PROBLEM)?;
    let [first @ .., last] = &parts[..] else { return Err(PROBLEM) };
    let last_bytes = 4usize.checked_sub(first.len()).filter(|n| (1..4).contains(n)).ok_or(PROBLEM)?;
    if first.iter().any(|part| *part > 255) || *last >> (8 * last_bytes) != 0 {
        return Err(PROBLEM);
    }
    let high = first.iter().zip([24, 16, 8]).fold(0, |bits, (part, shift)| bits | part << shift);
    u32::try_from(high | last).map(Ipv4Addr::from_bits).map_err(|_| PROBLEM)
}

/// A decimal number without sign or leading zero, which C would read as octal.
fn parse_decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindAddress::Tcp(address) => address.fmt(f),
            BindAddress::Abstract(name) => write!(f, "@{name}"),
            BindAddress::Autobind => f.write_str("@"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        text.parse::<BindAddress>().unwrap().to_string()
    }

    #[test]
    fn numeric_addresses_are_accepted_with_port_8080_as_default() {
        for (text, meaning) in [
            ("127.0.0.1:9001", "127.0.0.1:9001"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("127.0.0.1:65535", "127.0.0.1:65535"),
            ("10.1.2.3", "10.1.2.3:8080"),
            ("[::1]:9001", "[::1]:9001"),
            ("[127.0.0.1]:9001", "127.0.0.1:9001"),
            ("::1", "[::1]:8080"),
            ("fe80::1:9001", "[fe80::1:9001]:8080"),
            ("::ffff:1.2.3.4", "[::ffff:1.2.3.4]:8080"),
        ] {
            assert_eq!(parsed(text), meaning, "{text}");
        }
    }

    #[test]
    fn short_forms_fill_the_remaining_bytes_with_the_last_number() {
        assert_eq!(parsed("127.1:9001"), "127.0.0.1:9001");
        assert_eq!(parsed("10.1.515"), "10.1.2.3:8080");
        assert_eq!(parsed("10.16777215"), "10.255.255.255:8080");
    }

    #[test]
    fn unix_names_are_abstract_and_at_most_107_bytes() {
        assert_eq!("@".parse(), Ok(BindAddress::Autobind));
        assert_eq!("@node".parse(), Ok(BindAddress::Abstract("node".into())));
        assert_eq!(parsed(&format!("@{}", "x".repeat(107))).len(), 108);
        assert!(format!("@{}", "x".repeat(108)).parse::<BindAddress>().is_err());
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            ":9001",
            "localhost",
            "localhost:9001",
            "example.com:9001",
            "9000",
            "1",
            "127.0.0.1:",
            "127.0.0.1: 9001",
            "127.0.0.1:65536",
            "127.0.0.1:99999",
            "127.0.0.1:-1",
            "127.0.0.1:+1",
            "127.0.0.1:80:90",
            "127.0.0.1:http",
            "127.0.0.256:1",
            "127.256:1x",
            "10.16777216",
            "1.2.3.4.5",
            "1.2.3.",
            "010.0.0.1",
            "0x7f.1",
            "[::1]",
            "[::1]9001",
            "[::1",
            "[localhost]:1",
            "/run/socket",
        ] {
            assert!(text.parse::<BindAddress>().is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn a_refusal_says_what_is_accepted() {
        let error = "localhost:9001".parse::<BindAddress>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid address \"localhost:9001\": the host is not a numeric address; expected IPV4:PORT, \
             [IPV6]:PORT, a numeric IPV4 or IPV6 address (port 8080), @NAME or @"
        );
    }
}
