//! What it means when an attempt fails: the error that tells it, and whether it may be repeated.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use naming::Cause;
use telemetry::code::Code;

use crate::attempts::Attempts;
use crate::client::ConnectError;
use crate::exchange::AttemptError;
use crate::respond::RouteError;
use crate::tls::TlsFailure;

/// Why an attempt failed, and what that allows.
pub(crate) struct Failed {
    pub(crate) error: RouteError,
    /// It may be sent again without asking anybody but the requeue budget: it was provably not sent, or it only asks and
    /// its endpoint closed a pooled connection without a word.
    pub(crate) again: bool,
}

impl Attempts<'_> {
    /// A failure that is answered, with what else is to be known of it: all endpoints are ejected, no token was left.
    pub(crate) fn noted(&self, error: RouteError) -> RouteError {
        let noted = |error, code, note| RouteError::Noted {
            error: Box::new(error),
            code,
            note,
        };
        let error = match self.ejected {
            Some(until) => {
                let left = until
                    .saturating_duration_since(Instant::now())
                    .as_secs_f64();
                let note = format!(
                    "of {}; this one for {left:.1} s more",
                    self.client.shared.id
                );
                noted(error, Code::E113, note)
            }
            None => error,
        };
        match self.budget_spent {
            true => noted(error, Code::E114, "it was not repeated again".into()),
            false => error,
        }
    }

    pub(crate) fn no_endpoint(&self) -> RouteError {
        let path = self.route.service.shared.path.clone();
        let delegation = self
            .local
            .router
            .names
            .explain(&path, self.own)
            .map(Box::new);
        RouteError::Unbound {
            path,
            cause: Cause::AddrEmpty,
            delegation,
            near: None,
        }
    }

    pub(crate) fn connect_error(&self, error: ConnectError, endpoint: SocketAddr) -> RouteError {
        let path = self.route.service.shared.path.clone();
        let id = self.client.shared.id.clone();
        match error {
            ConnectError::Refused(error) => RouteError::Refused {
                endpoint,
                error,
                path,
                id,
            },
            ConnectError::NoPlace(why) => RouteError::NoPlace {
                endpoint,
                why,
                path,
                id,
            },
            ConnectError::Tls(failure) => RouteError::Tls {
                endpoint,
                failure,
                path,
                id,
            },
            ConnectError::Timeout => {
                let limit = self.client.settings.connect_timeout;
                RouteError::ConnectTimeout {
                    endpoint,
                    limit,
                    path,
                    id,
                }
            }
        }
    }

    /// What a broken attempt means, and whether the endpoint is at fault.
    pub(crate) fn attempt_error(
        &self,
        error: AttemptError,
        endpoint: SocketAddr,
        deadline: Option<(Instant, Duration, &'static str)>,
    ) -> (Failed, bool) {
        let path = self.route.service.shared.path.clone();
        let id = self.client.shared.id.clone();
        let failed = |error| Failed {
            error,
            again: false,
        };
        if let AttemptError::Broken {
            error: Some(error), ..
        } = &error
            && let Some(failure) = TlsFailure::refusal(error)
        {
            let error = RouteError::Tls {
                endpoint,
                failure,
                path,
                id,
            };
            return (failed(error), true);
        }
        match error {
            AttemptError::Broken { unsent, error } => {
                let stats = &self.client.stats;
                match unsent {
                    true => stats.broken_unsent.incr(),
                    false => stats.broken_sent.incr(),
                }
                (
                    Failed {
                        error: RouteError::Closed {
                            endpoint,
                            error,
                            path,
                            id,
                            unsent,
                        },
                        again: unsent,
                    },
                    true,
                )
            }
            AttemptError::BadResponse(error) => (
                failed(RouteError::BadResponse {
                    endpoint,
                    error,
                    path,
                    id,
                }),
                true,
            ),
            AttemptError::Deadline => {
                let (_, limit, what) =
                    deadline.unwrap_or((Instant::now(), Duration::ZERO, "the request"));
                (
                    failed(RouteError::Timeout {
                        limit,
                        to: id,
                        what,
                    }),
                    true,
                )
            }
            AttemptError::BodyStalled => (
                failed(RouteError::TooSlow(
                    "the request's body stands still for 60 s, or the server's `readTimeoutMs`",
                )),
                false,
            ),
            AttemptError::BadBody(error) => (failed(RouteError::BadBody(error)), false),
            AttemptError::ClientGone => (failed(RouteError::ClientGone), false),
        }
    }
}
