//! Names, ids, addresses, identities, paths, sizes and durations, as people and peers write them.

use std::fmt::{Debug, Display};
use std::path::{Component, Path};
use std::str::FromStr;

use hostler_common::bytes::Bytes;
use hostler_common::error::Chain;
use hostler_common::id::{
    HostName, HypervisorId, MAX_ID_LEN, OperationId, PoolName, ProcessToken, ResourceName,
};
use hostler_common::operation::{BackupId, PoolPath};
use hostler_common::units::UnixMillis;
use hostler_pki::address::CoordinatorAddress;
use hostler_pki::identity::{Identity, Role, TrustDomain};

use crate::said;

/// # Panics
/// When a name that is taken could lead out of a folder, be read as an option or not be read back.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for taken in [
        read::<HostName>(&text),
        read::<HypervisorId>(&text),
        read::<ResourceName>(&text),
        read::<PoolName>(&text),
        read::<ProcessToken>(&text),
    ] {
        taken.iter().for_each(|name| harmless(name));
    }
    read::<OperationId>(&text).iter().for_each(|id| harmless(id));
    read::<BackupId>(&text).iter().for_each(|id| harmless(id));
    read::<Role>(&text);
    read::<TrustDomain>(&text);
    if let Some(identity) = read::<Identity>(&text) {
        let identity: Identity = identity.parse().expect("it was read before");
        harmless(identity.subject.name().as_str());
    }
    if let Some(address) = read::<CoordinatorAddress>(&text) {
        let uri: Result<http::Uri, _> = format!("https://{address}").parse();
        assert!(uri.is_ok(), "{address:?} makes no URI");
    }
    if let Some(path) = read::<PoolPath>(&text) {
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        assert!(
            Path::new(&path).components().all(plain),
            "{path:?} leads out of its pool"
        );
        assert!(!path.contains(char::is_control), "{path:?}");
    }
    match text.parse::<Bytes>() {
        Ok(bytes) => {
            assert_eq!(bytes.0.to_string().parse(), Ok(bytes));
            said::bounded(&bytes.exact());
        }
        Err(error) => said::bounded(&error.to_string()),
    }
    drop(humantime::parse_duration(&text));
    if let Some(number) = data.first_chunk::<8>() {
        said::bounded(&UnixMillis(i64::from_le_bytes(*number)).to_string());
    }
}

/// The text of what `text` is read as, which must read as the same again.
fn read<T>(text: &str) -> Option<String>
where
    T: FromStr<Err: std::error::Error + 'static> + Display + PartialEq + Debug,
{
    match text.parse::<T>() {
        Ok(value) => {
            let shown = value.to_string();
            match shown.parse::<T>() {
                Ok(again) => assert_eq!(again, value),
                Err(error) => panic!("{shown:?} does not read back: {error}"),
            }
            Some(shown)
        }
        Err(error) => {
            let sentence = Chain(&error).to_string();
            said::bounded(&sentence);
            assert!(
                !sentence.contains(char::is_control),
                "{sentence:?} is not one line"
            );
            None
        }
    }
}

/// It is one part of a path, below any folder, and no option.
fn harmless(name: &str) {
    assert!(name.len() <= MAX_ID_LEN, "{name:?} is too long");
    assert!(!name.starts_with('-'), "{name:?} could be an option");
    assert!(!name.contains(char::is_control), "{name:?}");
    let joined = Path::new("/folder").join(name);
    let parts: Vec<_> = joined.components().collect();
    let inside =
        matches!(parts.as_slice(), [Component::RootDir, _, Component::Normal(last)] if **last == *name);
    assert!(inside, "{name:?} leads out of its folder");
}
