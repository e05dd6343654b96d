//! What a burst of requests needed goes back to the system.

use std::hint::black_box;
use std::time::Duration;

/// Between two times that memory is given back.
const EVERY: Duration = Duration::from_secs(2);

/// More than the allocator keeps in pages with other things: it has one of its own.
const PAGE: usize = 4 << 20;

/// Has the allocator give back what is free, forever. To be spawned once on the control runtime.
///
/// mimalloc (3.3) gives a page back a second after it became free, but looks for such pages only when a further one becomes
/// free: a process that has become idle would keep its burst's for good. So one does, every other second; nobody ever touches it.
pub(super) async fn give_back() {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        drop(black_box(Vec::<u8>::with_capacity(PAGE)));
    }
}
