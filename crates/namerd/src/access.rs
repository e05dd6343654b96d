//! Who may do what with which namespace.
//!
//! [`Access::who`] finds out who sends a request: a token of the [`TokenFile`], one that Kubernetes knows ([`Reviewer`]), or
//! a client's certificate. [`Access::check`] asks the grants. Without any of this ([`Access::open`]) everybody may
//! everything.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, header};

use crate::store::Namespace;

mod review;
mod tokens;

pub use review::{Reviewed, Reviewer};
pub use tokens::{TokenFile, TokenFileError};

use review::Reviews;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Read dtabs and their history, bind names.
    Read,
    /// Ask what a change would do.
    Plan,
    /// Change dtabs.
    Write,
    /// Change dtabs although live names break.
    Force,
    /// Tell, as a router, what is in use and which version is in force.
    Report,
}

impl Verb {
    /// All of them, from the least to the most.
    pub const ALL: [Self; 5] = [
        Self::Read,
        Self::Plan,
        Self::Write,
        Self::Force,
        Self::Report,
    ];

    /// Its name in a configuration and in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Plan => "plan",
            Self::Write => "write",
            Self::Force => "force",
            Self::Report => "report",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// A token's or a certificate's name, Kubernetes' user name; [`ANONYMOUS`] for who shows nothing.
    pub name: Arc<str>,
    /// Groups that Kubernetes or the file says.
    pub groups: Vec<Arc<str>>,
}

/// The name of those who show nothing.
pub const ANONYMOUS: &str = "anonymous";

impl Subject {
    /// Somebody of that name.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            groups: Vec::new(),
        }
    }

    /// Who shows nothing.
    pub fn anonymous() -> Self {
        Self::named(ANONYMOUS)
    }

    /// Whether nothing is known of them.
    pub fn is_anonymous(&self) -> bool {
        &*self.name == ANONYMOUS
    }

    /// Whether a grant to that is one to them: a name, `group:NAME`, or `*` for all that are known.
    fn is(&self, to: &str) -> bool {
        match to.strip_prefix("group:") {
            Some(group) => self.groups.iter().any(|one| **one == *group),
            None if to == "*" => !self.is_anonymous(),
            None => *self.name == *to,
        }
    }
}

/// What somebody may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Names of subjects, `group:NAME`, `*` for all who show who they are, `anonymous` for who does not.
    pub to: Vec<Arc<str>>,
    /// Names of namespaces; one that ends in `*` stands for all that begin so.
    pub namespaces: Vec<Arc<str>>,
    /// What is granted. Writing has planning and reading in it, planning has reading; force and report stand for
    /// themselves.
    pub may: Vec<Verb>,
}

impl Grant {
    fn allows(&self, verb: Verb) -> bool {
        self.may
            .iter()
            .any(|&granted| granted == verb || (granted <= Verb::Write && verb <= granted))
    }

    fn covers(&self, namespace: &Namespace) -> bool {
        self.namespaces
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => namespace.as_str().starts_with(start),
                None => **pattern == *namespace.as_str(),
            })
    }
}

/// Why somebody may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It is not known who asks: 401.
    #[error("{0}")]
    Unknown(String),
    /// Who asks may not do that: 403.
    #[error("{0}")]
    Forbidden(String),
    /// Who knows does not answer: 503.
    #[error("{0}")]
    Unavailable(String),
}

/// Who may do what.
pub struct Access {
    /// None: there are no rules at all.
    rules: Option<Rules>,
}

struct Rules {
    grants: Vec<Grant>,
    tokens: Option<TokenFile>,
    reviews: Option<Reviews>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grants = self.rules.as_ref().map(|rules| &rules.grants);
        f.debug_struct("Access").field("grants", &grants).finish()
    }
}

impl Access {
    /// Everybody may everything.
    pub fn open() -> Self {
        Self { rules: None }
    }

    /// Who is granted something may do that, and nobody else anything.
    pub fn of(
        grants: Vec<Grant>,
        tokens: Option<TokenFile>,
        reviewer: Option<Arc<dyn Reviewer>>,
    ) -> Self {
        let reviews = reviewer.map(Reviews::of);
        Self {
            rules: Some(Rules {
                grants,
                tokens,
                reviews,
            }),
        }
    }

    /// Whether everybody may everything.
    pub fn is_open(&self) -> bool {
        self.rules.is_none()
    }

    /// Who sends this: by the token in its head, or the certificate of its connection. A token that nobody knows is an
    /// error, whatever else is shown.
    pub async fn who(
        &self,
        headers: &HeaderMap,
        certificate: Option<&str>,
    ) -> Result<Subject, Denied> {
        let by_certificate = || {
            certificate.map_or_else(Subject::anonymous, |name| {
                Subject::named(format!("certificate:{name}"))
            })
        };
        let Some(rules) = &self.rules else {
            return Ok(by_certificate());
        };
        let mut shown = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = shown.next() else {
            return Ok(by_certificate());
        };
        let token = value
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| !token.is_empty() && shown.next().is_none());
        let Some(token) = token else {
            return Err(Denied::Unknown(
                "wanted one header `Authorization: Bearer TOKEN`, found another one".to_owned(),
            ));
        };
        rules.by_token(token).await
    }

    /// Whether somebody may do that with a namespace, or with any at all when none is named.
    pub fn check(
        &self,
        who: &Subject,
        verb: Verb,
        namespace: Option<&Namespace>,
    ) -> Result<(), Denied> {
        let Some(rules) = &self.rules else {
            return Ok(());
        };
        let allowed = rules.grants.iter().any(|grant| {
            grant.to.iter().any(|to| who.is(to))
                && grant.allows(verb)
                && namespace.is_none_or(|namespace| grant.covers(namespace))
        });
        let what = match namespace {
            Some(namespace) => format!("{verb} in namespace {namespace}"),
            None => verb.to_string(),
        };
        match allowed {
            true => Ok(()),
            false if who.is_anonymous() => Err(Denied::Unknown(format!(
                "{what}: say who you are with a header `Authorization: Bearer TOKEN`, or a client certificate"
            ))),
            false => Err(Denied::Forbidden(format!(
                "{} may not {what}: no entry of `access.grants` in the store's file says so",
                who.name
            ))),
        }
    }

    /// Whether somebody may read that namespace.
    pub fn sees(&self, who: &Subject, namespace: &Namespace) -> bool {
        self.check(who, Verb::Read, Some(namespace)).is_ok()
    }
}

impl Rules {
    async fn by_token(&self, token: &str) -> Result<Subject, Denied> {
        if let Some(tokens) = &self.tokens
            && let Some(subject) = tokens.subject(token)
        {
            return Ok(subject);
        }
        match &self.reviews {
            Some(reviews) => reviews.subject(token).await,
            None => Err(Denied::Unknown("nobody knows this token".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(to: &[&str], namespaces: &[&str], may: &[Verb]) -> Grant {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.into()).collect();
        Grant {
            to: texts(to),
            namespaces: texts(namespaces),
            may: may.to_vec(),
        }
    }

    fn access() -> Access {
        let grants = vec![
            grant(&["ci"], &["default", "team-*"], &[Verb::Write]),
            grant(&["group:ops"], &["*"], &[Verb::Write, Verb::Force]),
            grant(&["*"], &["default"], &[Verb::Plan]),
            grant(&[ANONYMOUS], &["public"], &[Verb::Read]),
        ];
        Access::of(grants, None, None)
    }

    #[test]
    fn each_verb_is_granted_in_its_namespaces_and_no_others() {
        let access = access();
        let ops = Subject {
            name: "ann".into(),
            groups: vec!["ops".into()],
        };
        for (who, namespace, may) in [
            (Subject::named("ci"), "default", "read plan write"),
            (Subject::named("ci"), "team-a", "read plan write"),
            (Subject::named("ci"), "teams", ""),
            (Subject::named("bob"), "default", "read plan"),
            (Subject::named("bob"), "public", ""),
            (Subject::anonymous(), "public", "read"),
            (Subject::anonymous(), "default", ""),
            (ops, "anything", "read plan write force"),
        ] {
            let namespace = Namespace::new(namespace).unwrap();
            let found: Vec<_> = Verb::ALL
                .into_iter()
                .filter(|&verb| access.check(&who, verb, Some(&namespace)).is_ok())
                .map(Verb::as_str)
                .collect();
            assert_eq!(found.join(" "), may, "{who:?} in {namespace}");
        }
    }

    #[test]
    fn who_is_not_known_is_told_apart_from_who_may_not() {
        let access = access();
        let namespace = Namespace::new("other").unwrap();
        let check = |who: &Subject| {
            access
                .check(who, Verb::Write, Some(&namespace))
                .unwrap_err()
        };
        let unknown = check(&Subject::anonymous());
        assert!(
            matches!(&unknown, Denied::Unknown(why) if why.contains("Authorization")),
            "{unknown}"
        );
        let forbidden = check(&Subject::named("ci"));
        assert!(
            matches!(&forbidden, Denied::Forbidden(why) if why.starts_with("ci may not write in namespace other")),
            "{forbidden}"
        );
        assert!(
            access
                .check(&Subject::named("bob"), Verb::Read, None)
                .is_ok()
        );
        assert!(
            access
                .check(&Subject::named("bob"), Verb::Force, None)
                .is_err()
        );
    }

    #[tokio::test]
    async fn what_is_no_bearer_token_is_refused_even_with_a_certificate() {
        let access = access();
        for value in ["Basic YTpi", "Bearer", "Bearer ", "token"] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            let denied = access.who(&headers, Some("ci")).await.unwrap_err();
            assert!(matches!(denied, Denied::Unknown(_)), "{value}: {denied}");
        }
        let who = access.who(&HeaderMap::new(), Some("ci")).await.unwrap();
        assert_eq!(&*who.name, "certificate:ci");
        assert!(
            access
                .who(&HeaderMap::new(), None)
                .await
                .unwrap()
                .is_anonymous()
        );
    }

    #[tokio::test]
    async fn without_rules_everybody_may_everything() {
        let access = Access::open();
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, "Bearer x".parse().unwrap())]);
        let who = access.who(&headers, None).await.unwrap();
        assert!(access.check(&who, Verb::Force, None).is_ok());
    }
}
