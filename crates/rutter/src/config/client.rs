//! `client` and `service`: by prefix of a name.

use std::time::Duration;

use naming::PathMatcher;
use router::settings::{
    ACCRUAL_FAILURES, Accrual, Backoff, Balancer, BudgetSettings, Classifier, ClientPart,
    EWMA_DECAY, PerPath, ServicePart,
};

use super::{At, tls};

/// Keys of the section itself (`io.l5d.global`), or those of each of `configs` (`io.l5d.static`).
fn per_path<T>(at: &At<'_>, part: impl Fn(&At<'_>) -> T) -> PerPath<T> {
    if !at.is_given() {
        return PerPath::default();
    }
    let entries = if at.tag("kind", "io.l5d.global") == "io.l5d.static" {
        at.get("configs")
            .items()
            .iter()
            .filter_map(|e| Some((e.get("prefix").pattern()?, part(e))))
            .collect()
    } else {
        PathMatcher::new("/")
            .ok()
            .into_iter()
            .map(|all| (all, part(at)))
            .collect()
    };
    PerPath { entries }
}

pub(super) fn clients(at: &At<'_>) -> PerPath<ClientPart> {
    per_path(at, |at| {
        let (pool, session) = (at.get("hostConnectionPool"), at.get("clientSession"));
        pool_clash(&pool);
        ClientPart {
            balancer: balancer(&at.get("loadBalancer")),
            accrual: accrual(&at.get("failureAccrual")),
            attempt_timeout: at.get("requestAttemptTimeoutMs").millis(),
            requeue_budget: budget(&at.get("requeueBudget")),
            fail_fast: at.get("failFast").bool(),
            pool_min: pool.get("minSize").u32(),
            pool_max: pool.get("maxSize").u32(),
            pool_idle: pool.get("idleTimeMs").millis(),
            pool_waiters: pool.get("maxWaiters").u32(),
            session_idle: session.get("idleTimeMs").millis(),
            session_life: session.get("lifeTimeMs").millis(),
            connect_timeout: at.get("connectTimeoutMs").millis(),
            tls: tls::client(&at.get("tls"), at.get("prefix").string().as_deref()),
            forward_client_cert: at.get("forwardClientCert").bool(),
            proxies: at.get("httpProxy").bool(),
        }
    })
}

fn pool_clash(pool: &At<'_>) {
    if let (Some(min), Some(max)) = (pool.get("minSize").u32(), pool.get("maxSize").u32())
        && min > max
    {
        pool.get("minSize").error(
            format!("`minSize` {min} is more than `maxSize` {max}"),
            "make it smaller",
        );
    }
}

pub(super) fn services(at: &At<'_>) -> PerPath<ServicePart> {
    per_path(at, |at| {
        let retries = at.get("retries");
        ServicePart {
            total_timeout: at.get("totalTimeoutMs").millis(),
            classifier: classifier(&at.get("responseClassifier")),
            retry_budget: budget(&retries.get("budget")),
            backoff: backoff(&retries.get("backoff")),
            max_retries: retries.get("maxPerRequest").u32(),
        }
    })
}

/// As Linkerd 1's aperture.
const APERTURE: (usize, f64, f64, Duration) = (1, 0.5, 2.0, Duration::from_secs(5));

fn balancer(at: &At<'_>) -> Option<Balancer> {
    Some(match at.tag("kind", "").as_str() {
        "p2c" => Balancer::P2c,
        "ewma" => Balancer::Ewma {
            decay: at.get("decayTimeMs").millis().unwrap_or(EWMA_DECAY),
        },
        "aperture" => {
            let (low, high) = (at.get("lowLoad"), at.get("highLoad"));
            let loads = (
                low.f64().unwrap_or(APERTURE.1),
                high.f64().unwrap_or(APERTURE.2),
            );
            if loads.0 >= loads.1 {
                at.error(
                    format!(
                        "`lowLoad` {} must be less than `highLoad` {}",
                        loads.0, loads.1
                    ),
                    "the defaults are 0.5 and 2.0",
                );
            }
            Balancer::Aperture {
                min: at.get("minAperture").usize().unwrap_or(APERTURE.0),
                low: loads.0,
                high: loads.1,
                smooth: at.get("smoothWindowMs").millis().unwrap_or(APERTURE.3),
            }
        }
        "heap" => Balancer::Heap,
        "roundRobin" => Balancer::RoundRobin,
        _ => return None,
    })
}

fn accrual(at: &At<'_>) -> Option<Accrual> {
    let wait = || backoff(&at.get("backoff")).unwrap_or_else(Backoff::accrual);
    Some(match at.tag("kind", "").as_str() {
        "none" => Accrual::None,
        "io.l5d.consecutiveFailures" => Accrual::Consecutive {
            failures: at.get("failures").u32().unwrap_or(ACCRUAL_FAILURES),
            backoff: wait(),
        },
        "io.l5d.successRate" => Accrual::SuccessRate {
            rate: at.get("successRate").f64()?,
            requests: at.get("requests").u32()?,
            backoff: wait(),
        },
        "io.l5d.successRateWindowed" => Accrual::SuccessRateWindowed {
            rate: at.get("successRate").f64()?,
            window: at.get("window").seconds()?,
            backoff: wait(),
        },
        _ => return None,
    })
}

fn backoff(at: &At<'_>) -> Option<Backoff> {
    Some(match at.tag("kind", "").as_str() {
        "constant" => Backoff::Constant(at.get("ms").millis().unwrap_or_default()),
        "jittered" => {
            let (min, max) = (at.get("minMs").millis()?, at.get("maxMs").millis()?);
            if min > max {
                at.get("minMs")
                    .error("`minMs` is more than `maxMs`", "make it smaller");
            }
            Backoff::Jittered { min, max }
        }
        _ => return None,
    })
}

fn budget(at: &At<'_>) -> Option<BudgetSettings> {
    let default = BudgetSettings::default();
    at.is_given().then(|| BudgetSettings {
        min_per_sec: at
            .get("minRetriesPerSec")
            .u32()
            .unwrap_or(default.min_per_sec),
        percent: at.get("percentCanRetry").f64().unwrap_or(default.percent),
        ttl: at.get("ttlSecs").seconds().unwrap_or(default.ttl),
    })
}

fn classifier(at: &At<'_>) -> Option<Classifier> {
    Some(match at.tag("kind", "").as_str() {
        "io.l5d.http.nonRetryable5XX" => Classifier::NonRetryable5xx,
        "io.l5d.http.retryableRead5XX" => Classifier::RetryableRead5xx,
        "io.l5d.http.retryableIdempotent5XX" => Classifier::RetryableIdempotent5xx,
        "io.l5d.http.retryableAll5XX" => Classifier::RetryableAll5xx,
        "io.l5d.http.allSuccessful" => Classifier::AllSuccessful,
        _ => return None,
    })
}
