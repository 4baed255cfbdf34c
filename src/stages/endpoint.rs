//! Served models for stages: the profile's settings, made a model.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::engine::stage::{Context, Endpoint};
use crate::llm::http::{HttpModel, HttpSettings, Usage};

/// The served model that a pipeline calls `name`. Its errors call the endpoint so, too.
///
/// # Errors
/// When the profile names no such endpoint, its address is none, or its key is not in the environment.
pub fn served_model(context: &Context, name: &str) -> anyhow::Result<HttpModel> {
    let endpoint = context.endpoint(name)?;
    Ok(HttpModel::new(name, &settings(name, endpoint)?)?)
}

/// Records what a served model has cost, as figures of this run.
pub fn record_usage(context: &Context, name: &str, usage: Usage) {
    let figures = [
        ("replies", usage.replies),
        ("failures", usage.failures),
        ("retries", usage.retries),
        ("prompt_tokens", usage.prompt_tokens),
        ("completion_tokens", usage.completion_tokens),
    ];
    for (figure, value) in figures {
        context.figure(format!("{name}.{figure}"), value as f64);
    }
    if usage.uncounted > 0 {
        let uncounted = usage.uncounted;
        context.warn(format!("endpoint `{name}` counted no tokens in {uncounted} replies: the sums lack them"));
    }
}

fn settings(name: &str, endpoint: Endpoint) -> anyhow::Result<HttpSettings> {
    let timeout = Duration::try_from_secs_f64(endpoint.timeout);
    let timeout = timeout.with_context(|| format!("endpoint `{name}`: `timeout` is {} seconds", endpoint.timeout))?;
    ensure!(!timeout.is_zero(), "endpoint `{name}`: `timeout` must be more than 0 seconds");
    let Endpoint { url, model, key_env, in_flight, retries, .. } = endpoint;
    Ok(HttpSettings { url, model, key_env, in_flight, timeout, retries })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limits_must_be_ones() {
        let endpoint = |timeout| Endpoint {
            url: "http://localhost/v1".to_owned(),
            model: "m".to_owned(),
            key_env: None,
            in_flight: 2,
            timeout,
            retries: 1,
        };
        assert_eq!(settings("agent", endpoint(1.5)).unwrap().timeout, Duration::from_millis(1500));
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = settings("agent", endpoint(wrong)).unwrap_err().to_string();
            assert!(error.starts_with("endpoint `agent`: `timeout`"), "{error}");
        }
    }
}
