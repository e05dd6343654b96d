//! Was it a success, and if not, may it be repeated: Linkerd 1's response classifiers.

use crate::http1::Method;
use crate::settings::Classifier;

/// The verdict on one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Success,
    /// A failure that may be repeated.
    Retryable,
    /// A failure that must not be repeated.
    Failure,
}

impl Classifier {
    /// What a response with this status means. `repeat_allowed`: the response itself says so (`l5d-retryable: true`).
    pub(crate) fn response(self, method: Method, status: u16, repeat_allowed: bool) -> Verdict {
        if self == Self::AllSuccessful || status < 500 {
            return Verdict::Success;
        }
        if repeat_allowed || self.repeats(method) {
            Verdict::Retryable
        } else {
            Verdict::Failure
        }
    }

    /// What an attempt without a response means.
    pub(crate) fn no_response(self, method: Method) -> Verdict {
        if self.repeats(method) {
            Verdict::Retryable
        } else {
            Verdict::Failure
        }
    }

    /// The methods whose failures may be repeated.
    fn repeats(self, method: Method) -> bool {
        let read = matches!(
            method,
            Method::Get | Method::Head | Method::Options | Method::Trace
        );
        let idempotent = read || matches!(method, Method::Put | Method::Delete);
        match self {
            Self::NonRetryable5xx | Self::AllSuccessful => false,
            Self::RetryableRead5xx => read,
            Self::RetryableIdempotent5xx => idempotent,
            Self::RetryableAll5xx => idempotent || matches!(method, Method::Post | Method::Patch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_repeats_its_methods_and_no_others() {
        use Classifier::*;
        for (kind, repeated) in [
            (NonRetryable5xx, vec![]),
            (
                RetryableRead5xx,
                vec![Method::Get, Method::Head, Method::Options, Method::Trace],
            ),
            (
                RetryableIdempotent5xx,
                vec![
                    Method::Get,
                    Method::Head,
                    Method::Options,
                    Method::Trace,
                    Method::Put,
                    Method::Delete,
                ],
            ),
        ] {
            for method in [
                Method::Get,
                Method::Head,
                Method::Options,
                Method::Trace,
                Method::Put,
                Method::Delete,
                Method::Post,
                Method::Patch,
                Method::Connect,
                Method::Other,
            ] {
                let want = if repeated.contains(&method) {
                    Verdict::Retryable
                } else {
                    Verdict::Failure
                };
                assert_eq!(
                    kind.response(method, 503, false),
                    want,
                    "{kind:?} {method:?}"
                );
                assert_eq!(kind.no_response(method), want, "{kind:?} {method:?}");
                assert_eq!(
                    kind.response(method, 404, false),
                    Verdict::Success,
                    "{kind:?} {method:?}"
                );
            }
        }
        assert_eq!(
            RetryableAll5xx.response(Method::Post, 500, false),
            Verdict::Retryable
        );
        assert_eq!(
            RetryableAll5xx.response(Method::Connect, 500, false),
            Verdict::Failure
        );
        assert_eq!(
            AllSuccessful.response(Method::Get, 500, true),
            Verdict::Success
        );
    }

    #[test]
    fn a_response_may_allow_its_repetition() {
        assert_eq!(
            Classifier::NonRetryable5xx.response(Method::Post, 502, true),
            Verdict::Retryable
        );
        assert_eq!(
            Classifier::NonRetryable5xx.response(Method::Post, 200, true),
            Verdict::Success
        );
    }
}
