//! What a storage tells of, taken into memory. Errors change nothing, and nothing older replaces anything newer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use dtab::Dtab;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{Backend, Item, Namespace, Past, Record, Shared, Standing, Stored, Told, Trouble};
use crate::store::Origin;

/// The first wait after a failure, which doubles, and the longest; jittered.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// Who was followed for as long does well.
const WELL: Duration = Duration::from_secs(10);

/// For ever.
pub(super) async fn keep<B: Backend>(shared: Arc<Shared<B>>) {
    let mut wait = RETRY.0;
    loop {
        let began = Instant::now();
        let trouble = shared.backend.follow(&Told(&shared)).await;
        shared.lost(&trouble);
        if began.elapsed() > WELL {
            wait = RETRY.0;
        }
        sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

impl<B: Backend> Told<'_, B> {
    /// Where the last change stood that was taken in; to be asked before a list is.
    pub(in crate::store) fn newest(&self) -> u64 {
        self.0.seen().values().copied().max().unwrap_or(0)
    }

    /// All there is, as of `order`. What is not among it is gone, unless it came later. `newest` was it before the list.
    pub(in crate::store) async fn whole(
        &self,
        newest: u64,
        order: u64,
        items: Vec<(Namespace, Item<B::Held>)>,
    ) {
        let backwards = order < newest;
        if backwards {
            warn!(storage = %self.0.backend.place(), order, newest, "the storage went backwards, as if it were restored from a copy: what it has is taken, what it lacks stays");
            self.0.seen().clear();
        }
        let listed: HashSet<_> = items.iter().map(|(name, _)| name.clone()).collect();
        for (namespace, item) in items {
            self.came(namespace, item).await;
        }
        if !backwards {
            let names = self.0.live.names().get();
            for namespace in names.iter().filter(|name| !listed.contains(*name)) {
                self.gone(namespace, order).await;
            }
        }
        self.0.heard();
    }

    /// An item is there, or has changed.
    pub(in crate::store) async fn came(&self, namespace: Namespace, item: Item<B::Held>) {
        if self.0.is_old(&namespace, item.place.order) {
            return;
        }
        let known = self.0.live.get(&namespace);
        if item.meta.is_none()
            && let Some(known) =
                known.filter(|one| one.record.tag.as_ref() != Some(&item.place.version))
        {
            // Nobody has archived what was replaced past us.
            self.0.archive_known(&namespace, &known.record).await;
        }
        let read = match self.0.stored(&namespace, &item).await {
            Ok(read) => read,
            Err(error) => {
                warn!(%namespace, %error, "a changed dtab cannot be numbered yet; the last one stays");
                return;
            }
        };
        match read.dtab {
            Ok(dtab) => {
                let order = item.place.order;
                self.0.take(&namespace, read.record, Some(dtab), order);
            }
            Err(reason) => {
                warn!(%namespace, version = read.record.version(), %reason, "what is stored is no dtab; the last one stays in force");
            }
        }
    }

    /// An item was deleted, at this place among all changes.
    pub(in crate::store) async fn gone(&self, namespace: &Namespace, order: u64) {
        if self.0.is_old(namespace, order) {
            return;
        }
        let Some(known) = self.0.live.get(namespace) else {
            self.0.seen().insert(namespace.clone(), order);
            return;
        };
        let last = self.0.backend.archived(namespace, None, 1).await;
        let told = last.is_ok_and(|last| {
            last.first()
                .is_some_and(|past| past.number > known.record.number)
        });
        if !told {
            self.0.archive_known(namespace, &known.record).await;
            let who = format!("outside, in {}", self.0.backend.place());
            let end = Record {
                number: known.record.number + 1,
                origin: Origin::now(who, ""),
                text: None,
                tag: None,
            };
            self.0.archive_known(namespace, &end).await;
        }
        self.0.take(namespace, known.record.clone(), None, order);
    }

    /// All is well, though there was nothing to tell.
    pub(in crate::store) fn well(&self) {
        self.0.heard();
    }
}

impl<B: Backend> Shared<B> {
    fn is_old(&self, namespace: &Namespace, order: u64) -> bool {
        self.seen()
            .get(namespace)
            .is_some_and(|seen| *seen >= order)
    }

    /// Puts a record in force, or takes its namespace away, unless something later is known.
    pub(super) fn take(
        &self,
        namespace: &Namespace,
        record: Record,
        dtab: Option<Dtab>,
        order: u64,
    ) -> Option<Arc<Stored>> {
        let mut seen = self.seen();
        let last = seen.entry(namespace.clone()).or_insert(0);
        match dtab {
            Some(dtab) if *last >= order => return Some(Arc::new(Stored { record, dtab })),
            // Where a storage does not say where a deletion stands, it has the place of what it deleted.
            None if *last > order => return None,
            _ => {}
        }
        *last = order.max(*last);
        self.live.take(namespace, record, dtab)
    }

    async fn archive_known(&self, namespace: &Namespace, record: &Record) {
        let archived = async {
            let behind = Some(record.number + 1);
            let there = self.backend.archived(namespace, behind, 1).await?;
            match there
                .first()
                .is_some_and(|past| past.number == record.number)
            {
                true => Ok(()),
                false => {
                    self.backend
                        .archive(namespace, &Past::of(record, None))
                        .await
                }
            }
        };
        if let Err(error) = archived.await {
            warn!(%namespace, version = record.number, %error, "a version is missing in the history");
        }
    }

    fn heard(&self) {
        self.live.heard();
        let before = self.standing.get();
        if *before != Standing::Good {
            info!(storage = %self.backend.place(), "the storage is followed");
            self.standing.set(Standing::Good);
        }
    }

    fn lost(&self, trouble: &Trouble) {
        let why: Arc<str> = trouble.to_string().into();
        self.live.still_awaited(&why);
        let now = match &*self.standing.get() {
            Standing::Awaited(_) => Standing::Awaited(why.clone()),
            Standing::Good | Standing::Lost(_) => Standing::Lost(why.clone()),
        };
        if self.standing.set_if_new(now) {
            warn!(storage = %self.backend.place(), problem = %why, "the storage cannot be followed; what is known stays in force");
        }
    }
}
