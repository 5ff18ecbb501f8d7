# fmt, lints, proto lint, dependency rules
check:
    cargo fmt --check
    cargo clippy --workspace --all-targets -- -D warnings
    cd proto && buf lint
    cargo deny check bans licenses sources

# all tests; nothing may be skipped with IRONYARD_REQUIRE_ALL=1
test:
    cargo build --workspace --bins
    cargo nextest run --workspace
