#!/usr/bin/env python3
"""Plants faults that were mended once, one at a time, in a copy of the tree, and sees that the simulation finds each.

    tests/scripts/mutations.py [--schedules N] [--release] [NAME ...]

The copy is built in the same target directory, so that only the workspace's own crates are built again.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Name, file, text that is there, text of the fault.
MUTATIONS = [
    (
        "a pass writes over whatever it finds",
        "libs/reconcile/src/pass.rs",
        """        if !self.queue.holds(&mut tx, &self.lease).await? {
            return Err(SaveError::Lost);
        }
        match record::update(&mut tx, &next, now).await? {""",
        """        if let Some(there) = record::get_for_update::<T>(&mut tx, &next.value.metadata().name).await? {
            next.version = there.version;
        }
        match record::update(&mut tx, &next, now).await? {""",
    ),
    (
        "a step follows from what is found, not from what was done",
        "services/claim/src/tasks/cleanup.rs",
        "(run.step, run.step_at, run.waiting) = (from.next(), now, None);",
        "(run.step, run.step_at, run.waiting) = (from.next().next(), now, None);",
    ),
    (
        "what was wanted at the reservation is not owed",
        "services/claim/src/tasks/cleanup_steps.rs",
        "} else if debt.reclaim_policy() == ReclaimPolicy::Retain {",
        "} else if debt.reclaim_policy() == ReclaimPolicy::Retain && wanted {",
    ),
    (
        "a debt is forgotten on the way back from Error or a maintenance",
        "services/inventory/src/domain/lifecycle.rs",
        "(None, Some(_), _) => Ok(Step::Moved(State::Cleanup, facts)),",
        "(None, Some(_), _) => available(Facts { debt: None, ..facts }),",
    ),
    (
        "a change of power has no name of its own",
        "services/claim/src/tasks/claims.rs",
        'format!("{}-power-{}", claim.value.metadata.uid, claim.value.applied.changes)',
        'format!("{}-power-{}", claim.value.metadata.uid, claim.value.applied.changes.min(1))',
    ),
    (
        "a claim goes before its server",
        "services/claim/src/tasks/claims.rs",
        """            app.inventory
                .transition(&server, ServerEvent::Release""",
        """            pass.delete(claim, app.cx.now()).await?;
            app.inventory
                .transition(&server, ServerEvent::Release""",
    ),
    (
        "a claim that asks again gets another server",
        "services/inventory/src/app/reserve_server.rs",
        "answers.push(held.remove(&claim.uid));",
        "answers.push(held.remove(&claim.uid).filter(|_| asked.len() > 1));",
    ),
    (
        "two claims of a batch get the server that both name",
        "services/inventory/src/app/reserve_server.rs",
        "if taken.contains(&wanted.server) {",
        "if taken.contains(&wanted.server) && wanted.tolerations.len() > 9 {",
    ),
    (
        "an erase is begun again with each look",
        "services/claim/src/tasks/cleanup_steps.rs",
        'let key = format!("{}-erase-{}", run.metadata.name, job.serial);',
        'let key = format!("{}-erase-{}-{}", run.metadata.name, job.serial, stored.version);',
    ),
    (
        "a claim that nobody bound is forgotten without a look",
        "services/claim/src/tasks/binder.rs",
        "match self.app.inventory.held_by(&claim.value.metadata.uid).await? {",
        'match self.app.inventory.held_by("nobody").await? {',
    ),
    (
        "a drive that was not verified passes",
        "services/claim/src/domain/sanitize.rs",
        "self.erased && self.verified",
        "self.erased",
    ),
    (
        "a wipe goes on where its run was cancelled",
        "services/claim/src/tasks/cleanup.rs",
        "&& run.value.failure.is_none()\n        {",
        "&& run.value.failure.is_some()\n        {",
    ),
    (
        "an agent acts for a server that a claim holds",
        "services/discovery/src/tasks/agent_runs.rs",
        "if state != wanted && claimed {",
        "if state != wanted && claimed && run.stop {",
    ),
    (
        "maintenance switches a server that was claimed since",
        "services/maintenance/src/tasks/maintenances.rs",
        "(ServerState::Maintenance, true) => self.look_after",
        "(ServerState::Maintenance, true) | (ServerState::Reserved, _) if maintenance.begun => self.look_after",
    ),
    (
        "maintenance begins on a server that was claimed first",
        "services/maintenance/src/tasks/maintenances.rs",
        "            (ServerState::Maintenance, true) => self.look_after",
        "            (ServerState::Maintenance, true) | (ServerState::Reserved, false) if !maintenance.task.is_empty() => {\n                self.look_after(pass, stored, &server).await\n            }\n            (ServerState::Maintenance, true) => self.look_after",
    ),
]


def run(tree: pathlib.Path, release: bool, schedules: int) -> tuple[bool, str]:
    """Whether the simulation passes, and what it says."""
    env = dict(os.environ, CARGO_TARGET_DIR=os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target")))
    env.update(IRONYARD_SCHEDULES=str(schedules), RUST_BACKTRACE="0")
    command = ["cargo", "test", "-q", "-p", "ironyard-tests", "--test", "stack"] + (["--release"] if release else [])
    built = subprocess.run(command + ["--no-run"], cwd=tree, env=env, capture_output=True, text=True)
    if built.returncode:
        sys.exit(f"it does not compile:\n{built.stderr[-3000:]}")
    tested = subprocess.run(
        command + ["simulation::random_schedules", "--", "--nocapture"], cwd=tree, env=env, capture_output=True, text=True
    )
    return tested.returncode == 0, tested.stdout + tested.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=2000, help="as many are run at most for each fault")
    parser.add_argument("--release", action="store_true")
    parser.add_argument("names", nargs="*", help="only faults whose name contains one of these")
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if not options.names or any(name in m[0] for name in options.names)]
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder) / "tree"
        files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, files.split("\0")):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())
        for name, path, before, after in chosen:
            file = tree / path
            text = file.read_text()
            if text.count(before) != 1:
                sys.exit(f"{name}: {path} has the text {text.count(before)} times, not once")
            file.write_text(text.replace(before, after))
            passes, said = run(tree, options.release, options.schedules)
            file.write_text(text)
            found = re.findall(r'"(seed \d+: .*)",', said)
            if passes:
                missed.append(name)
            print(f"{'MISSED' if passes else 'found '}  {name}\n        {found[0][:160] if found else said[-400:]}", flush=True)
    print(f"{len(chosen) - len(missed)} of {len(chosen)} faults were found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
