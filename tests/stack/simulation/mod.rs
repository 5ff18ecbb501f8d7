//! Random schedules of the real services over simulated time: replicas of claim, discovery and maintenance take turns, transaction by
//! transaction and call by call; answers are lost or late, clocks are off and step, processes are paused and die. What was recorded of each
//! schedule is judged by [`crate::checkers::history`].
//!
//! A seed is a schedule: `IRONYARD_SEED=n` runs one and prints its turns. `IRONYARD_SCHEDULES` is how many are run, on all processors;
//! unless told, 150 on one, beside the other tests.

pub mod actors;
mod hardware;
mod record;
mod schedule;
mod users;
mod world;

use std::time::Instant;

use schedule::{Outcome, run};
use world::World;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

fn alone<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

/// Keeps this thread, and those that it will start, on one processor: what takes turns all the time is several times as fast there.
fn stay(n: u64) {
    let mut one = rustix::thread::CpuSet::new();
    let allowed = rustix::thread::sched_getaffinity(None).unwrap_or(one);
    let of = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    if let Some(cpu) = usize::try_from(n).ok().and_then(|n| of.clone().nth(n)) {
        one.set(cpu);
        // Where that is not allowed, it is slower.
        let _ = rustix::thread::sched_setaffinity(None, &one);
    }
}

/// Runs these schedules on this thread; what was found, by seed.
fn all(seeds: impl Iterator<Item = u64>) -> (u64, u64, Vec<String>) {
    alone(async {
        let world = World::open().await;
        let (mut count, mut turns, mut found) = (0, 0, Vec::new());
        for seed in seeds {
            let outcome = run(&world, seed, false).await;
            (count, turns) = (count + 1, turns + outcome.turns);
            if count % 1000 == 0 {
                println!("{count} schedules of this thread, up to seed {seed}");
            }
            found.extend(outcome.found.iter().map(|fault| format!("seed {seed}: {fault}")));
            if found.len() > 20 {
                break;
            }
        }
        (count, turns, found)
    })
}

#[test]
fn random_schedules_keep_every_promise() {
    if let Some(seed) = setting("IRONYARD_SEED") {
        let Outcome { found, turns, .. } = alone(async { run(&World::open().await, seed, true).await });
        assert!(found.is_empty(), "seed {seed}, {turns} turns: {found:#?}");
        return;
    }
    let told = setting("IRONYARD_SCHEDULES");
    let most = told.unwrap_or(150);
    let first = setting("IRONYARD_FIRST_SEED").unwrap_or(1);
    let all_of_them = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let threads = told.map_or(1, |_| all_of_them);
    let began = Instant::now();
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            std::thread::spawn(move || {
                stay(thread);
                all((first..first + most).filter(move |seed| seed % threads == thread))
            })
        })
        .collect();
    let (mut count, mut turns, mut found) = (0, 0, Vec::new());
    for worker in workers {
        let (ran, took, faults) = worker.join().unwrap();
        (count, turns) = (count + ran, turns + took);
        found.extend(faults);
    }
    println!("{count} schedules, {turns} turns, {:?}", began.elapsed());
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(count, most);
}

#[test]
fn a_seed_is_a_schedule() {
    let [first, second] = [(); 2].map(|()| {
        alone(async {
            let world = World::open().await;
            let (mut turns, mut shape) = (0, Vec::new());
            for seed in 1..=3 {
                let outcome = run(&world, seed, false).await;
                turns += outcome.turns;
                shape.extend(outcome.shape);
            }
            (turns, shape)
        })
    });
    assert_eq!(first, second);
    assert!(first.1.iter().any(|fact| fact == "Certificate"), "{:?}", first.1);
}
