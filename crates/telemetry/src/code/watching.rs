//! The table behind [`Watching`]: what a router says of what it knows of Kubernetes.

use super::Entry;

catalogue! {
    /// What a router says in its log and on `/state` about its watches and their snapshot.
    Watching:
    K01 "the snapshot on disk cannot be used" [];
    "`stateDir` has a snapshot of what a router knew of Kubernetes, and it is damaged, of another format or API server, or older than a day. It is ignored; the router starts without it and waits for the API server.";
    causes "the router was replaced by a version with another format", "the disk was full or lost power while the file was written by something else", "the directory was copied from another cluster", "the node was off for more than a day";
    fix "Nothing, when the API server answers: the next snapshot takes its place within seconds. Remove the file if it stays.";
    see "a `warn` line at start with what is wrong; `snapshot` in `/state`.";

    K02 "snapshots cannot be written" [];
    "What the router knows of Kubernetes is not saved to `stateDir`. Traffic is not affected; but a router that is restarted while the API server is away would start with an older snapshot or none.";
    causes "the directory is read-only or belongs to another user", "the disk is full";
    fix "Give the router a writable `stateDir`: an emptyDir survives a restart of the container, a hostPath that of the pod.";
    see "`rutter_snapshot_failures_total`; `snapshot` in `/state`; a `warn` line.";

    K03 "a watch was silent" [];
    "The API server sent nothing on a watch for so long that something must be wrong with the connection. It is opened anew from the last version seen, so that changes are late rather than lost.";
    causes "a firewall or balancer forgot the connection without telling", "the API server or its node is gone without closing connections", "the API server sends no bookmarks";
    fix "If it goes on, look for idle limits below a minute on the way to the API server.";
    see "`rutter_namer_watch_silences_total`; `silences` in `/state`; a `warn` line.";

    K04 "a list lacks most of what was known" [];
    "The API server gave a list that has less than half of the objects known before. What is new in it is used at once; nothing is removed until a second list, some ten seconds later, agrees. Removals that a watch tells of are not affected.";
    causes "an API server behind the balancer that has an empty or very old store", "a proxy in front of it that answers for another cluster", "most of the cluster was really deleted while the router could not watch";
    fix "If it was not meant, find the API server that answers wrongly; the routers come back to what is true by themselves.";
    see "`rutter_namer_watch_doubts_total`; `doubts` in `/state`; a `warn` line with the numbers.";

    K05 "a watch missed changes" [];
    "Every five minutes what is held is compared with a fresh list. They differed although the watch was well, and everything was listed again; until then requests may have gone to addresses that were gone.";
    causes "a proxy between router and API server that loses events", "an API server with a stale cache", "a defect of ours";
    fix "Look at the way to the API server, without a proxy if possible. Please report it if there is none.";
    see "`rutter_namer_watch_repairs_total`, which is 0 on a healthy cluster; `repairs` in `/state`; a `warn` line.";
}
