//! `cargo run -p behalf-fuzz -- TARGET`: the driver by hand. `fuzz/libfuzzer` is better at finding things.

use std::time::{Duration, Instant};

use behalf_fuzz::{TARGETS, driver};
use clap::Parser;

#[derive(Parser)]
struct Args {
    /// Only this target; all in turn, if none is named
    target: Option<String>,
    /// How long for each
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where to begin
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    for target in
        TARGETS.iter().filter(|target| args.target.as_deref().is_none_or(|name| name == target.name))
    {
        let (began, mut seed) = (Instant::now(), args.seed);
        let rounds = 10_000;
        while began.elapsed() < Duration::from_secs(args.seconds) {
            driver::run(target, seed, rounds)?;
            seed += 1;
        }
        println!(
            "{}: {} inputs, seeds {} to {}",
            target.name,
            (seed - args.seed) * rounds,
            args.seed,
            seed - 1
        );
    }
    Ok(())
}
