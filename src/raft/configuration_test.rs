use super::*;
use proptest::prelude::*;

/// A bootstrap entry as the C library writes it: id 1, voter, `127.0.0.1:21001`.
const GOLDEN: [u8; 40] = [
    1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x31, 0x32, 0x37, 0x2e, 0x30, 0x2e, 0x30, 0x2e, 0x31,
    0x3a, 0x32, 0x31, 0x30, 0x30, 0x31, 0, 1, 0, 0, 0, 0, 0, 0,
];

fn server(id: u64, address: &str, role: Role) -> Server {
    Server { id: ServerId(id), address: address.into(), role }
}

fn three() -> Configuration {
    Configuration {
        servers: vec![
            server(7, "one:9001", Role::Voter),
            server(3, "two:9001", Role::Standby),
            server(u64::MAX, "three:9001", Role::Spare),
        ],
    }
}

#[test]
fn the_golden_bytes_of_the_c_library_are_read_and_written() {
    let one = Configuration { servers: vec![server(1, "127.0.0.1:21001", Role::Voter)] };
    assert_eq!(one.encode(), &GOLDEN[..]);
    assert_eq!(Configuration::decode(Bytes::from_static(&GOLDEN)), Ok(one));
}

#[test]
fn garbage_behind_the_last_server_is_ignored() {
    let mut bytes = GOLDEN;
    bytes[34..].copy_from_slice(b"garbge");
    assert!(Configuration::decode(Bytes::copy_from_slice(&bytes)).is_ok());
    // Padding is not even required: the last server may end the bytes.
    assert!(Configuration::decode(Bytes::copy_from_slice(&bytes[..34])).is_ok());
}

#[test]
fn every_prefix_is_an_error_never_a_panic() {
    let bytes = three().encode();
    // Up to where the last role is read; what follows is padding.
    let end = HEADER_SIZE + (8 + 8 + 2) + (8 + 8 + 2) + (8 + 10 + 2);
    for len in 0..end {
        let result = Configuration::decode(bytes.slice(..len));
        assert!(matches!(result, Err(ConfigurationError::Truncated(_))), "prefix of {len} bytes: {result:?}");
    }
    assert_eq!(Configuration::decode(bytes.slice(..end)), Ok(three()));
}

#[test]
fn malformed_configurations_are_refused_with_their_reason() {
    let decode = |change: fn(&mut Vec<u8>)| {
        let mut bytes = three().encode().to_vec();
        change(&mut bytes);
        Configuration::decode(bytes.into()).unwrap_err()
    };
    assert_eq!(decode(|b| b[0] = 2), ConfigurationError::UnknownFormat(2));
    assert_eq!(decode(|b| b[26] = 3), ConfigurationError::UnknownRole { id: ServerId(7), role: 3 });
    assert_eq!(decode(|b| b[27] = 7), ConfigurationError::DuplicateId(ServerId(7)));
    assert_eq!(decode(|b| b[17] = 0xff), ConfigurationError::AddressNotText(ServerId(7)));
    assert_eq!(
        decode(|b| b[35..43].copy_from_slice(b"one:9001")),
        ConfigurationError::DuplicateAddress("one:9001".into())
    );
    // A count that no input could hold neither allocates nor loops for long.
    assert!(matches!(decode(|b| b[1..9].fill(0xff)), ConfigurationError::Truncated(_)));
    // Without a single NUL the first address never ends.
    assert_eq!(decode(|b| b[17..].fill(b'x')), ConfigurationError::Truncated(Truncated { offset: 17 }));
}

#[test]
fn a_quorum_is_more_than_half_of_the_voters_and_only_of_them() {
    let mut configuration = three();
    assert_eq!((configuration.voters().count(), configuration.quorum()), (1, 1));
    for (voters, quorum) in [(2, 2), (3, 2), (4, 3), (5, 3)] {
        configuration.servers.push(server(100 + voters, &format!("v{voters}"), Role::Voter));
        assert_eq!(configuration.quorum(), quorum, "{voters} voters");
    }
    assert_eq!(Configuration::default().quorum(), 1);
}

#[test]
fn a_sole_voter_is_the_only_one_and_a_voter() {
    let mut configuration = three();
    assert!(configuration.is_sole_voter(ServerId(7)));
    assert!(!configuration.is_sole_voter(ServerId(3)), "a stand-by");
    assert!(!configuration.is_sole_voter(ServerId(4)), "a stranger");
    configuration.servers[1].role = Role::Voter;
    assert!(!configuration.is_sole_voter(ServerId(7)), "one of two");
}

#[test]
fn servers_are_found_by_id_and_by_address() {
    let configuration = three();
    assert_eq!(configuration.get(ServerId(3)), Some(&configuration.servers[1]));
    assert_eq!(configuration.by_address("three:9001"), Some(&configuration.servers[2]));
    assert_eq!(configuration.by_address("three"), None);
    assert!(configuration.contains(ServerId(3)) && !configuration.contains(ServerId(4)));
}

fn any_configuration() -> impl Strategy<Value = Configuration> {
    let role = prop_oneof![Just(Role::Standby), Just(Role::Voter), Just(Role::Spare)];
    proptest::collection::btree_map(any::<u64>(), ("[^\0]{0,20}", role), 0..8).prop_map(|members| {
        let servers = members.into_iter().enumerate().map(|(n, (id, (address, role)))| Server {
            id: ServerId(id),
            address: format!("{n}{address}"),
            role,
        });
        Configuration { servers: servers.collect() }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(configuration in any_configuration()) {
        let bytes = configuration.encode();
        prop_assert_eq!(bytes.len() % 8, 0);
        // Addresses may be equal behind different numbers ("1" + "2x", "12" + "x"): that is a duplicate.
        let mut addresses: Vec<_> = configuration.servers.iter().map(|s| &s.address).collect();
        addresses.sort();
        addresses.dedup();
        prop_assume!(addresses.len() == configuration.servers.len());
        prop_assert_eq!(Configuration::decode(bytes), Ok(configuration));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Configuration::decode(bytes.into());
    }
}
