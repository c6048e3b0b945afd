//! What the parent asks for, by flag.

use std::collections::HashMap;

/// Flags and their values.
#[derive(Debug, Clone)]
pub(crate) struct Settings(HashMap<String, String>);

impl Settings {
    pub(crate) fn from_arguments() -> Result<Settings, String> {
        let mut flags = HashMap::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .ok_or_else(|| format!("{name} needs a value"))?;
            flags.insert(name, value);
        }
        Ok(Settings(flags))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn text(&self, name: &str) -> Result<String, String> {
        let given = self.get(name).map(str::to_owned);
        given.ok_or_else(|| format!("{name} is missing"))
    }

    pub(crate) fn number(&self, name: &str, default: u64) -> Result<u64, String> {
        match self.get(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|error| format!("{name} {text}: {error}")),
        }
    }
}
