//! The next state of something that is worked out from changing values: what a stream says next, and what a long poll
//! waits for.

use std::time::Duration;

use naming::{Activity, Addr, BindError, Reads};

/// How long the first answer waits when it would be that a name leads nowhere: a namer may learn of it in this moment.
const MOMENT: Duration = Duration::from_millis(100);

/// What a state comes to.
#[derive(Debug)]
pub(crate) enum State<T> {
    /// Nothing to be said yet.
    Wait,
    /// This is known.
    Is(T),
    /// This is wrong; it may become right later.
    Fails(String),
}

impl<T> State<T> {
    /// What an activity comes to.
    pub(crate) fn of(activity: Activity<T, BindError>) -> Self {
        match activity {
            Activity::Pending(_) => Self::Wait,
            Activity::Failed(error) => Self::Fails(error.to_string()),
            Activity::Ok(value) => Self::Is(value),
        }
    }

    /// The same with another value.
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> State<U> {
        match self {
            Self::Wait => State::Wait,
            Self::Is(value) => State::Is(change(value)),
            Self::Fails(why) => State::Fails(why),
        }
    }
}

impl State<Addr> {
    /// An address set that is not known yet is waited for.
    pub(crate) fn of_addr(activity: Activity<Addr, BindError>) -> Self {
        match activity {
            Activity::Ok(Addr::Pending) => Self::Wait,
            other => Self::of(other),
        }
    }
}

/// The state, once `worth_saying` says so of it. It is worked out again whenever something that it read has changed.
/// Cancel safe.
///
/// # Errors
/// What the state fails with.
pub(crate) async fn next<T>(
    state: &mut (impl FnMut(&mut Reads) -> State<T> + ?Sized),
    mut worth_saying: impl FnMut(&T) -> bool,
    in_doubt: impl Fn(&T) -> bool,
) -> Result<T, String> {
    let mut waited = false;
    loop {
        let mut reads = Reads::new();
        match state(&mut reads) {
            State::Is(value) if in_doubt(&value) && !waited => {
                waited = true;
                _ = tokio::time::timeout(MOMENT, reads.changed()).await;
                continue;
            }
            State::Is(value) if worth_saying(&value) => return Ok(value),
            State::Fails(why) => return Err(why),
            State::Is(_) | State::Wait => {}
        }
        reads.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use naming::Var;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_a_state_that_is_worth_saying() {
        let var = Var::new(0);
        let mut state = {
            let var = var.clone();
            move |reads: &mut Reads| State::Is(*var.read(reads))
        };
        assert_eq!(next(&mut state, |_| true, |_| false).await, Ok(0));
        let later =
            tokio::spawn(async move { next(&mut state, |value| *value > 1, |_| false).await });
        tokio::task::yield_now().await;
        var.set(1);
        tokio::task::yield_now().await;
        assert!(!later.is_finished());
        var.set(2);
        assert_eq!(later.await.unwrap(), Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_not_said_in_haste() {
        let var = Var::new(None);
        let mut state = {
            let var = var.clone();
            move |reads: &mut Reads| State::Is(*var.read(reads))
        };
        let asked = tokio::spawn(async move {
            let said = next(&mut state, |_| true, Option::is_none).await;
            said.map(|said| (said, state))
        });
        tokio::task::yield_now().await;
        var.set(Some(1));
        let (said, mut state) = asked.await.unwrap().unwrap();
        assert_eq!(said, Some(1));
        var.set(None);
        assert_eq!(
            next(&mut state, |_| true, Option::is_none).await,
            Ok(None),
            "after a moment"
        );
    }
}
