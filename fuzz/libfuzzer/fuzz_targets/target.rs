//! One program for all targets: `BEHALF_FUZZ_TARGET` names the one to try.
#![no_main]

use std::sync::OnceLock;

use behalf_fuzz::{Target, target};
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<Target> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let chosen = TARGET.get_or_init(|| {
        let name = std::env::var("BEHALF_FUZZ_TARGET").expect("BEHALF_FUZZ_TARGET names the target");
        *target(&name).expect("there is no such target")
    });
    (chosen.run)(data);
});
