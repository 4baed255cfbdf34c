//! Served models for stages: the profile's settings, made a model.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::engine::stage::{Context, Endpoint, in_full};
use crate::llm::account::Account;
use crate::llm::drive::drive_here;
use crate::llm::http::probe::probe;
pub use crate::llm::http::probe::{Finding, Verdict};
use crate::llm::http::{Dialect, EndpointError, HttpModel, HttpSettings};
use crate::model::device::device;

/// The served model that a pipeline calls `name`. Its errors call the endpoint so, too.
///
/// # Errors
/// When the profile names no such endpoint, its address is none, or its key is not in the environment.
pub fn served_model(context: &Context, name: &str) -> anyhow::Result<HttpModel> {
    let endpoint = context.endpoint(name)?;
    Ok(HttpModel::new(name, &settings(name, endpoint)?)?)
}

/// Looks at an endpoint: its address, its key, and with `ask` what its server says to at most seven tiny calls.
pub fn examine(name: &str, endpoint: Endpoint, ask: bool) -> Vec<Finding> {
    let key = endpoint.key_env.clone();
    let model = settings(name, endpoint).and_then(|settings| {
        // What a run would get over by trying again is to be seen here.
        let impatient = HttpSettings { retries: 0, ..settings };
        Ok(HttpModel::new(name, &impatient)?)
    });
    let model = match model {
        Ok(model) => model,
        Err(error) => {
            let missing = matches!(error.downcast_ref(), Some(EndpointError::NoKey { .. }));
            let advice =
                if missing { "set the variable where `thresh` is started" } else { "put it right in thresh.toml" };
            return vec![Finding::wrong("settings", in_full(&error), advice)];
        }
    };
    let key = key.map_or("no key is needed".to_owned(), |variable| format!("`{variable}` holds a key"));
    let mut findings = vec![Finding::fine("settings", format!("{}, {key}", model.address()))];
    if ask {
        let job = std::iter::once(probe(&model));
        // Nobody stops it: it ends by itself when the time limits are over.
        let _ = drive_here(&[&model], 1, job, |_, found| findings.extend(found), &AtomicBool::new(false));
    }
    findings
}

/// Looks at the device of a profile.
pub fn examine_device(name: &str) -> Finding {
    match device(name) {
        Ok(_) => Finding::fine("device", format!("`{name}` can be used")),
        Err(error) => Finding::wrong("device", error.to_string(), "say `device = \"cpu\"` in thresh.toml"),
    }
}

/// Records what a served model has cost, as figures of this run.
pub fn record_account(context: &Context, name: &str, account: Account) {
    for (figure, value) in account.figures() {
        context.figure(format!("{name}.{figure}"), value);
    }
    if context.profile.endpoint(name).is_some_and(|endpoint| endpoint.prices.is_some()) {
        context.figure(format!("{name}.cost"), account.cost);
    }
    if account.uncounted > 0 {
        let uncounted = account.uncounted;
        context.warn(format!("endpoint `{name}` counted no tokens in {uncounted} replies: the sums lack them"));
    }
}

fn settings(name: &str, endpoint: Endpoint) -> anyhow::Result<HttpSettings> {
    let limit = |field, seconds: f64| {
        let limit = Duration::try_from_secs_f64(seconds);
        let limit = limit.with_context(|| format!("endpoint `{name}`: `{field}` is {seconds} seconds"))?;
        ensure!(!limit.is_zero(), "endpoint `{name}`: `{field}` must be more than 0 seconds");
        Ok(limit)
    };
    Ok(HttpSettings {
        connect_timeout: limit("connect_timeout", endpoint.connect_timeout)?,
        timeout: limit("timeout", endpoint.timeout)?,
        url: endpoint.url,
        model: endpoint.model,
        key_env: endpoint.key_env,
        gate: endpoint.gate,
        retries: endpoint.retries,
        prices: endpoint.prices,
        dialect: Dialect { max_tokens_field: endpoint.max_tokens_field, omit: endpoint.omit, extra: endpoint.extra },
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::net::gate::{Gate, Limits};

    #[test]
    fn time_limits_must_be_ones() {
        let endpoint = |connect_timeout, timeout| Endpoint {
            url: "http://localhost/v1".to_owned(),
            model: "m".to_owned(),
            key_env: None,
            gate: Arc::new(Gate::new(Limits { in_flight: 2, ..Limits::default() })),
            connect_timeout,
            timeout,
            retries: 1,
            prices: None,
            max_tokens_field: None,
            omit: Vec::new(),
            extra: Default::default(),
        };
        let fine = settings("agent", endpoint(2.0, 1.5)).unwrap();
        assert_eq!((fine.connect_timeout, fine.timeout), (Duration::from_secs(2), Duration::from_millis(1500)));
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = settings("agent", endpoint(1.0, wrong)).unwrap_err().to_string();
            assert!(error.starts_with("endpoint `agent`: `timeout`"), "{error}");
            let error = settings("agent", endpoint(wrong, 1.0)).unwrap_err().to_string();
            assert!(error.starts_with("endpoint `agent`: `connect_timeout`"), "{error}");
        }
    }
}
