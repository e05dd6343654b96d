//! `access` of the store: who may do what. Not in Linkerd 1.

use super::{Effect, Key, Section, Ty};

/// `access`.
pub static ACCESS: Section = Section {
    title: "access of the store",
    keys: &[
        Key::new(
            "tokens",
            Ty::ExistingFile,
            "none",
            "A file of lines `NAME TOKEN [GROUP…]`, where `sha256:` and its hash can stand for the token. It is followed.",
        )
        .but(Effect::Ours),
        Key::new(
            "tokenReview",
            Ty::Section(&REVIEW),
            "none",
            "Tokens are those that a Kubernetes API server knows, such as a service account's; the store needs the permission to create `tokenreviews`.",
        )
        .but(Effect::Ours),
        Key::required(
            "grants",
            Ty::List(&Ty::Section(&GRANT)),
            "Who may do what; what no entry says, nobody may.",
        )
        .but(Effect::Ours),
    ],
    also: &[],
    removed: &[],
};

static REVIEW: Section = Section {
    title: "access.tokenReview",
    keys: &[
        Key::new(
            "host",
            Ty::Text,
            "localhost (outside a pod, without a kubeconfig)",
            "Where the API server is, as of the namer `io.l5d.k8s`.",
        )
        .but(Effect::Ours),
        Key::new(
            "port",
            Ty::Port,
            "8001 (outside a pod, without a kubeconfig)",
            "And its port.",
        )
        .but(Effect::Ours),
        Key::new(
            "audiences",
            Ty::List(&Ty::Text),
            "the API server's own",
            "Whom tokens must be meant for: one of these.",
        )
        .but(Effect::Ours),
    ],
    also: &[],
    removed: &[],
};

static GRANT: Section = Section {
    title: "access.grants[]",
    keys: &[
        Key::required(
            "to",
            Ty::List(&Ty::Text),
            "Names from the file of tokens, Kubernetes' user names, `certificate:NAME`; `group:NAME`; `*` for all who show who they are; `anonymous` for who does not.",
        )
        .but(Effect::Ours),
        Key::new(
            "namespaces",
            Ty::List(&Ty::Text),
            "[\"*\"]",
            "Which namespaces; one that ends in `*` stands for all that begin so.",
        )
        .but(Effect::Ours),
        Key::required(
            "may",
            Ty::List(&Ty::OneOf(&["read", "plan", "write", "force", "report"])),
            "What: `write` has `plan` in it, and `plan` has `read`; `force` is to change what breaks live names; `report` is for routers, which tell what is in use.",
        )
        .but(Effect::Ours),
    ],
    also: &[],
    removed: &[],
};
