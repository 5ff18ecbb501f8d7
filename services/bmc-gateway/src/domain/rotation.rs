//! How a password is changed without ever being lost: it is stored before it is set, and takes the old one's place only after a login.

use serde::{Deserialize, Serialize};

/// What is remembered between steps; the passwords themselves are in the vault.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Credential.
    pub credential: String,
    /// Whether the new password is stored as pending.
    pub stored: bool,
    /// Whether we decided to set it on the BMC; stored before.
    pub intent: bool,
    /// How often setting it had no answer.
    pub sets: u32,
    /// Why the BMC refused it, if it did: believed once the old one is proved to be good.
    pub refused: Option<(String, String)>,
    /// How often the new one was refused after it was set.
    pub verifies: u32,
    /// Whether the BMC has accepted it.
    pub set: bool,
    /// Whether a login with it succeeded.
    pub verified: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Make a password and store it as pending.
    Store,
    /// Remember the intent, then set it.
    Set,
    /// It may have been set: try the new one, then the old one, once each.
    Find,
    /// Log in with the new one.
    Verify,
    /// The new one takes the place of the old one.
    Promote,
}

/// Decides the next step from what was remembered.
pub fn plan(progress: &Progress) -> Next {
    match (progress.stored, progress.intent, progress.set, progress.verified) {
        (false, _, _, _) => Next::Store,
        (true, false, _, _) => Next::Set,
        (true, true, false, _) => Next::Find,
        (true, true, true, false) => Next::Verify,
        (true, true, true, true) => Next::Promote,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_stored_before_it_is_set_and_tried_before_it_is_promoted() {
        let mut p = Progress::default();
        assert_eq!(plan(&p), Next::Store);
        p.stored = true;
        assert_eq!(plan(&p), Next::Set);
        p.intent = true;
        assert_eq!(plan(&p), Next::Find);
        p.set = true;
        assert_eq!(plan(&p), Next::Verify);
        p.verified = true;
        assert_eq!(plan(&p), Next::Promote);
    }
}
