//! Answers that go on: a document for each new state, until the client hangs up.
//!
//! The next document is made when the socket has taken the last one, of the state that is the newest then: a slow client
//! costs one document, and nobody waits for it.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use naming::Reads;
use tokio_util::sync::CancellationToken;

use super::answer::Response;

/// How a name that leads nowhere is said.
const NOTHING: &str = r#"{"type":"neg"}"#;
/// How long a stream waits before it begins with [`NOTHING`].
const MOMENT: Duration = Duration::from_millis(100);

/// What a state comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing to be said of it: the next one is waited for. With what it waits for.
    Wait(String),
    /// This is said, unless it is what was said last.
    Say(String),
    /// This is said, and then the answer ends.
    End(String),
}

/// A stream of what `state` says. It is asked again when something that it read has changed.
pub(super) fn documents(
    state: impl FnMut(&mut Reads) -> Next + Send + 'static,
    stop: CancellationToken,
) -> Response {
    let begin = Some((state, None::<String>, stop));
    let frames = stream::unfold(begin, |going_on| async move {
        let (mut state, last, stop) = going_on?;
        let mut waited = false;
        loop {
            let mut reads = Reads::new();
            match state(&mut reads) {
                // A namer may learn of a name in this very moment: nothing is not said in haste.
                Next::Say(text) if last.is_none() && text == NOTHING && !waited => {
                    waited = true;
                    _ = tokio::time::timeout(MOMENT, reads.changed()).await;
                    continue;
                }
                Next::Say(text) if last.as_ref() != Some(&text) => {
                    return Some((frame(&text), Some((state, Some(text), stop))));
                }
                Next::End(text) => return Some((frame(&text), None)),
                Next::Say(_) | Next::Wait(_) => {}
            }
            tokio::select! {
                () = reads.changed() => {}
                () = stop.cancelled() => return None,
            }
        }
    });
    Response::new(StreamBody::new(frames).boxed_unsync())
}

fn frame(text: &str) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(Bytes::from(format!("{text}\n"))))
}
