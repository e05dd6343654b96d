//! What stands behind `?`.

use std::borrow::Cow;
use std::time::Duration;

use dtab::{Dtab, Path};
use percent_encoding::percent_decode_str;

use super::answer::Refusal;
use crate::change::shapes::duration;

/// The parameters of a request; of several with one name the first counts.
#[derive(Debug, Default)]
pub(super) struct Query(pub(super) Vec<(String, String)>);

impl Query {
    pub(super) fn of(text: &str) -> Result<Self, Refusal> {
        let decoded = |part: &str| -> Result<String, Refusal> {
            let spaced: Cow<'_, str> = part.replace('+', " ").into();
            let decoded = percent_decode_str(&spaced).decode_utf8();
            let decoded = decoded.map_err(|_| Refusal::bad("the query is not UTF-8"))?;
            Ok(decoded.into_owned())
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            // A dtab that is not encoded has a `=` of its own.
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name)?, decoded(value)?))
        });
        Ok(Self(pairs.collect::<Result<_, Refusal>>()?))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn watch(&self) -> bool {
        self.is_true("watch")
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }

    /// A number, when it is given.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let read = |text: &str| {
            let number = text.parse();
            number.map_err(|_| Refusal::bad(format!("`{name}` is a number, found {text:?}")))
        };
        self.get(name).map(read).transpose()
    }

    /// A length of time, when it is given.
    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, Refusal> {
        let read = |text: &str| {
            let reason =
                || format!("`{name}` is a length of time such as 5s or 5m, found {text:?}");
            duration(text).ok_or_else(|| Refusal::bad(reason()))
        };
        self.get(name).map(read).transpose()
    }

    /// `path`, which must be there.
    pub(super) fn path(&self) -> Result<Path, Refusal> {
        let text = self.get("path").ok_or_else(|| {
            Refusal::bad("the parameter `path` is missing, such as path=/svc/web")
        })?;
        Path::read(text).map_err(|error| Refusal::bad(format!("Invalid path: {text} {error}")))
    }

    /// `dtab`, put behind the namespace's; empty when it is not given.
    pub(super) fn dtab(&self) -> Result<Dtab, Refusal> {
        let text = self.get("dtab").unwrap_or_default();
        Dtab::read(text).map_err(|error| Refusal::bad(format!("Invalid dtab: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_the_first_of_a_name_counts() {
        let query =
            Query::of("path=/%23/a&dtab=/x=>/y%3b/a=>/b+|+/c&watch=1&path=/b&bare").unwrap();
        assert_eq!(query.path().unwrap().to_string(), "/#/a");
        assert_eq!(query.dtab().unwrap().to_string(), "/x=>/y;/a=>/b | /c");
        assert!(query.watch());
        assert_eq!(query.get("bare"), Some(""));
        assert!(Query::of("path=%ff").is_err());
        let missing = Query::of("").unwrap().path().unwrap_err();
        assert!(missing.reason.contains("`path` is missing"));
    }
}
