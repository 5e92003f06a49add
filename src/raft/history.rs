//! The configurations the log still needs: the one in force and those a truncation or a snapshot may go back
//! to. Owned by the core.
//!
//! A configuration is in force as soon as its entry is appended, committed or not (dissertation 4.1), so it
//! must be given up again when that entry is truncated. The history is the log's Change entries, decoded,
//! from the newest applied one on; before them, the snapshot's.

use super::configuration::Configuration;
use super::types::Index;
use std::collections::VecDeque;

static NO_SERVERS: Configuration = Configuration { servers: Vec::new() };

/// Configurations by the index of the entry that carried them, ascending.
#[derive(Debug, Clone, Default)]
pub struct ConfigurationHistory {
    entries: VecDeque<(Index, Configuration)>,
}

impl ConfigurationHistory {
    /// The configuration in force: the newest one. Without any, one without servers.
    pub fn current(&self) -> &Configuration {
        self.entries.back().map_or(&NO_SERVERS, |(_, configuration)| configuration)
    }

    /// The configuration before the one in force.
    pub fn previous(&self) -> &Configuration {
        self.entries.iter().rev().nth(1).map_or(&NO_SERVERS, |(_, configuration)| configuration)
    }

    /// Where the configuration in force stands in the log; 0 without any.
    pub fn current_index(&self) -> Index {
        self.entries.back().map_or(Index(0), |(position, _)| *position)
    }

    /// The configuration that was in force when the entry at `index` was appended, and where it stands.
    pub fn at(&self, index: Index) -> Option<(Index, &Configuration)> {
        let older = self.entries.iter().rev().find(|(position, _)| *position <= index);
        older.map(|(position, configuration)| (*position, configuration))
    }

    /// Puts a configuration in force.
    pub fn push(&mut self, index: Index, configuration: Configuration) {
        if let Some((newest, _)) = self.entries.back() {
            assert!(*newest < index, "configuration at {index} is not newer than the one at {newest}");
        }
        self.entries.push_back((index, configuration));
    }

    /// Takes every configuration from `index` on out of force. Says whether there was one.
    pub fn truncate_from(&mut self, index: Index) -> bool {
        let before = self.entries.len();
        while self.entries.back().is_some_and(|(position, _)| *position >= index) {
            self.entries.pop_back();
        }
        self.entries.len() < before
    }

    /// Forgets what nobody can ask for once `index` is applied: all that is older than the one applied there.
    pub fn forget_before(&mut self, index: Index) {
        while self.entries.get(1).is_some_and(|(position, _)| *position <= index) {
            self.entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Role, Server, ServerId};

    fn of(id: u64) -> Configuration {
        Configuration {
            servers: vec![Server { id: ServerId(id), address: format!("s{id}"), role: Role::Voter }],
        }
    }

    fn history(indexes: &[u64]) -> ConfigurationHistory {
        let mut history = ConfigurationHistory::default();
        for index in indexes {
            history.push(Index(*index), of(*index));
        }
        history
    }

    #[test]
    fn the_newest_configuration_is_in_force() {
        assert_eq!(history(&[]).current().servers, []);
        assert_eq!(history(&[1, 7]).current(), &of(7));
    }

    #[test]
    fn truncation_restores_the_configuration_before_the_truncated_entries() {
        let mut history = history(&[1, 7, 9]);
        assert!(!history.truncate_from(Index(10)));
        assert_eq!(history.current(), &of(9));
        assert!(history.truncate_from(Index(5)));
        assert_eq!(history.current(), &of(1));
    }

    #[test]
    fn a_snapshot_gets_the_configuration_of_its_own_index() {
        let history = history(&[1, 7]);
        assert_eq!(history.at(Index(0)), None);
        assert_eq!(history.at(Index(6)), Some((Index(1), &of(1))));
        assert_eq!(history.at(Index(7)), Some((Index(7), &of(7))));
    }

    #[test]
    fn forgetting_keeps_the_applied_configuration_and_everything_newer() {
        let mut history = history(&[1, 3, 7, 9]);
        history.forget_before(Index(8));
        assert_eq!(history.at(Index(6)), None);
        assert_eq!(history.at(Index(8)), Some((Index(7), &of(7))));
        assert!(history.truncate_from(Index(9)));
        assert_eq!(history.current(), &of(7));
    }
}
