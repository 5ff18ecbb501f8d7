use std::{collections::HashMap, sync::Arc};

use serde_json::Value;

/// A recorded tree: bodies by path, served as they were recorded.
#[derive(Clone)]
pub struct Tree(Arc<HashMap<String, Value>>);

impl Tree {
    /// From a map of paths to bodies.
    pub fn new(bodies: HashMap<String, Value>) -> Self {
        Self(Arc::new(bodies.into_iter().map(|(path, body)| (key(&path), body)).collect()))
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Value> {
        self.0.get(&key(path))
    }
}

fn key(path: &str) -> String {
    path.trim_end_matches('/').to_ascii_lowercase()
}
