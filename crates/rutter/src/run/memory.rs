//! What a burst of requests needed goes back to the system.

use std::time::Duration;

/// Between two times that memory is given back.
const EVERY: Duration = Duration::from_secs(2);

/// Has the allocator give back what is free, forever. To be spawned once on the control runtime.
///
/// mimalloc (3.3) gives a page back a second after it became free, but looks for such pages only when a further one becomes
/// free: a process that has become idle would keep its burst's for good.
pub(super) async fn give_back() {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        mi_collect(false);
    }
}

/// Gives back all that the calling thread freed: mimalloc keeps a page of each size that it emptied last, until the thread
/// has made some thousand more allocations of that kind. Takes some 10 µs for a MiB in use.
pub(super) fn collect() {
    mi_collect(true);
}

#[expect(
    unsafe_code,
    reason = "mimalloc has no other way in; a call that takes a bool, from any thread, at any time"
)]
fn mi_collect(all: bool) {
    unsafe { libmimalloc_sys::mi_collect(all) }
}
