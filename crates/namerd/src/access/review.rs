//! Tokens that somebody else knows: Kubernetes' TokenReview, remembered for a while.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Denied, Subject};

/// An answer is believed for so long; a token that is taken back is known until then.
const BELIEVED: Duration = Duration::from_secs(60);
/// That nobody knows a token is believed for so long.
const DOUBTED: Duration = Duration::from_secs(10);
/// So many answers are remembered.
const MOST: usize = 10_000;

/// What a [`Reviewer`] answers: whose token it is, none when nobody's; an error when it cannot say.
pub type Reviewed<'a> = Pin<Box<dyn Future<Output = Result<Option<Subject>, String>> + Send + 'a>>;

/// Knows tokens.
pub trait Reviewer: Send + Sync {
    /// Whose token this is.
    fn review<'a>(&'a self, token: &'a str) -> Reviewed<'a>;
}

/// A reviewer and what it said.
pub(super) struct Reviews {
    reviewer: Arc<dyn Reviewer>,
    /// By the token's hash: no token is kept.
    said: Mutex<Said>,
}

/// Until when an answer is believed, and the answer.
type Said = HashMap<[u8; 32], (Instant, Option<Subject>)>;

impl Reviews {
    pub(super) fn of(reviewer: Arc<dyn Reviewer>) -> Self {
        Self {
            reviewer,
            said: Mutex::default(),
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose token this is.
    pub(super) async fn subject(&self, token: &str) -> Result<Subject, Denied> {
        let nobody = || Denied::Unknown("nobody knows this token".to_owned());
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let now = Instant::now();
        let remembered = self
            .said()
            .get(&hash)
            .filter(|(until, _)| *until > now)
            .cloned();
        if let Some((_, subject)) = remembered {
            return subject.ok_or_else(nobody);
        }
        let subject = self.reviewer.review(token).await.map_err(|error| {
            Denied::Unavailable(format!("whose token this is cannot be found out: {error}"))
        })?;
        let until = now + if subject.is_some() { BELIEVED } else { DOUBTED };
        let mut said = self.said();
        if said.len() >= MOST {
            said.retain(|_, (until, _)| *until > now);
        }
        if said.len() < MOST {
            said.insert(hash, (until, subject.clone()));
        }
        drop(said);
        subject.ok_or_else(nobody)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Knows `good`; is away for `away`.
    #[derive(Default)]
    struct Fake(AtomicUsize);

    impl Reviewer for Fake {
        fn review<'a>(&'a self, token: &'a str) -> Reviewed<'a> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                match token {
                    "good" => Ok(Some(Subject::named("system:serviceaccount:a:b"))),
                    "away" => Err("connection refused".to_owned()),
                    _ => Ok(None),
                }
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_remembered_for_a_while_and_failures_are_not() {
        let fake = Arc::new(Fake::default());
        let reviews = Reviews::of(fake.clone());
        let asked = || fake.0.load(Ordering::Relaxed);
        for _ in 0..3 {
            let subject = reviews.subject("good").await.unwrap();
            assert_eq!(&*subject.name, "system:serviceaccount:a:b");
            assert!(matches!(
                reviews.subject("bad").await,
                Err(Denied::Unknown(_))
            ));
        }
        assert_eq!(asked(), 2);
        for _ in 0..2 {
            assert!(matches!(
                reviews.subject("away").await,
                Err(Denied::Unavailable(_))
            ));
        }
        assert_eq!(asked(), 4);
        tokio::time::advance(DOUBTED).await;
        _ = reviews.subject("bad").await;
        _ = reviews.subject("good").await;
        assert_eq!(asked(), 5);
        tokio::time::advance(BELIEVED).await;
        _ = reviews.subject("good").await;
        assert_eq!(asked(), 6);
    }

    #[tokio::test]
    async fn who_makes_tokens_up_gets_no_memory() {
        let reviews = Reviews::of(Arc::new(Fake::default()));
        for n in 0..MOST + 100 {
            _ = reviews.subject(&n.to_string()).await;
        }
        assert_eq!(reviews.said().len(), MOST);
        assert!(reviews.subject("good").await.is_ok());
    }
}
