//! Memory in which requests are served. What [`handle`] needs while it waits is some kilobytes: it goes from request to
//! request, so that an idle connection has none of it, and the one used last, which is in the cache, is used next.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use crate::connection::{Connection, Job};
use crate::entrance::Behind;
use crate::handle::{After, handle};
use crate::worker::Worker;

/// A request on its way through [`handle`], or the place for one.
pub(crate) struct Stage {
    /// Takes requests out of `wings`, one after the other.
    play: Pin<Box<dyn Future<Output = Infallible>>>,
    wings: Rc<Wings>,
}

/// A request that begins, and what serves it.
type Begun = (Rc<Behind>, Box<Connection>, Box<Job>);
/// A request that was served.
type Served = (Box<Connection>, Box<Job>, After);

/// What is handed to a stage, and handed back.
#[derive(Default)]
struct Wings {
    enter: Cell<Option<Begun>>,
    leave: Cell<Option<Served>>,
}

impl Stage {
    fn new() -> Self {
        let wings = Rc::<Wings>::default();
        Self {
            play: Box::pin(play(Rc::clone(&wings))),
            wings,
        }
    }
}

/// Serves the request whose head is in `job`. Cancel safe as [`handle`] is: what is dropped is dropped with its request.
pub(crate) async fn on_stage(
    worker: &Worker,
    behind: &Rc<Behind>,
    connection: Box<Connection>,
    job: Box<Job>,
) -> Served {
    let mut stage = worker.stages.take().unwrap_or_else(Stage::new);
    let enter = (Rc::clone(behind), connection, job);
    stage.wings.enter.set(Some(enter));
    let served = poll_fn(|cx| match stage.play.as_mut().poll(cx) {
        Poll::Pending => match stage.wings.leave.take() {
            Some(served) => Poll::Ready(served),
            None => Poll::Pending,
        },
        Poll::Ready(never) => match never {},
    })
    .await;
    worker.stages.give(stage);
    served
}

async fn play(wings: Rc<Wings>) -> Infallible {
    loop {
        if let Some((behind, mut connection, mut job)) = wings.enter.take() {
            let Connection { ends, down } = &mut *connection;
            let after = handle(&behind.local, ends, down, &mut job).await;
            wings.leave.set(Some((connection, job, after)));
        }
        let mut left = false;
        poll_fn(|_| match std::mem::replace(&mut left, true) {
            // Whoever waits for the request looks into the wings; who comes next polls again.
            false => Poll::Pending,
            true => Poll::Ready(()),
        })
        .await;
    }
}
