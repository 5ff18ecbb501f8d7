//! Generated messages, clients and servers; nothing else.

/// Descriptors of every Ironyard proto file, with comments, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! packages {
    ($($name:ident = $package:literal),* $(,)?) => {
        mod ironyard {
            $(pub mod $name { pub mod v1 { tonic::include_proto!($package); } })*
        }
        $(pub use ironyard::$name::v1 as $name;)*
    };
}

packages! {
    common = "ironyard.common.v1",
    inventory = "ironyard.inventory.v1",
    bmc = "ironyard.bmc.v1",
    discovery = "ironyard.discovery.v1",
    claim = "ironyard.claim.v1",
    maintenance = "ironyard.maintenance.v1",
}
