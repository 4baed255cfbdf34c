//! What every HTTP client of ours shares: TLS, time limits, how long to wait before trying again, and what a server bears.

pub mod gate;

use std::time::{Duration, SystemTime};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{ClientBuilder, Url, redirect};

/// The longest that a connection may take to come about.
pub const CONNECT: Duration = Duration::from_secs(10);

/// The longest that a server's own `Retry-After` is honoured for.
pub const LONGEST_REQUESTED: Duration = Duration::from_secs(120);

/// Settings for a client that talks to `url`: the platform's certificates, no redirects, no proxy to this machine itself.
pub fn client(url: &Url) -> ClientBuilder {
    // Fails when one stands already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().connect_timeout(CONNECT).redirect(redirect::Policy::none());
    let host = url.host_str().unwrap_or_default();
    let here =
        host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    if here { builder.no_proxy() } else { builder }
}

/// Lets this process have as many connections and files open as the system allows it; usually it starts with less.
pub fn allow_many() {
    if let Ok((now, most)) = getrlimit(Resource::RLIMIT_NOFILE)
        && now < most
    {
        // Where it is refused, calls wait for connections that cannot be opened yet, as after any other trouble.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// What went wrong, in one line: the innermost cause, without the address, which may hold secrets.
pub fn reason(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return if error.is_connect() { "no connection in time" } else { "no answer in time" }.to_owned();
    }
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_connect() { format!("no connection: {cause}") } else { format!("the connection broke: {cause}") }
}

/// Waits that double, each drawn between half and the whole of its length so that many callers do not come back at once.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
    draws: ChaCha8Rng,
}

impl Backoff {
    /// Waits that start at `first` and end at `longest`; the same seed draws the same waits.
    pub fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        Self { next: first.min(longest), longest, draws: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The next wait; never shorter than the server asked for, up to two minutes.
    pub fn next(&mut self, requested: Option<Duration>) -> Duration {
        let drawn = self.next.mul_f64(self.draws.random_range(0.5..=1.0));
        self.next = (self.next * 2).min(self.longest);
        drawn.max(requested.unwrap_or_default().min(LONGEST_REQUESTED))
    }
}

/// How long the server asks to wait: seconds, or a date seen from `now`; milliseconds in the header that some have for them.
/// What is neither is ignored.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |value: &HeaderValue| value.to_str().ok().map(|text| text.trim().to_owned());
    let number = |text: &str| text.parse::<f64>().ok().and_then(|number| Duration::try_from_secs_f64(number).ok());
    if let Some(milliseconds) = headers.get("retry-after-ms").and_then(text).and_then(|text| number(&text)) {
        return Some(milliseconds / 1_000);
    }
    let value = &text(headers.get(RETRY_AFTER)?)?;
    if let Some(seconds) = number(value) {
        return Some(seconds);
    }
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(http_date(value)?))?;
    Some(at.duration_since(now).unwrap_or_default())
}

/// Seconds since 1970 of an HTTP date in its preferred form: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let [_, day, month, year, time, "GMT"] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let (day, year) = (day.parse::<u64>().ok()?, year.parse::<u64>().ok()?);
    let parts: Vec<u64> = time.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hour, minute, second] = parts[..] else { return None };
    if !(1..=31).contains(&day) || !(1970..10_000).contains(&year) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970, the year starting in March so that the leap day is its last.
    let shifted = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = 365 * shifted + shifted / 4 - shifted / 100 + shifted / 400 + day_of_year - 719_468;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(value: &'static str, now: u64) -> Option<u64> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
        Some(retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(now))?.as_secs())
    }

    #[test]
    fn dates_are_seconds_since_1970() {
        // Values of GNU date.
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        assert_eq!(http_date("Fri, 01 Mar 2024 00:00:00 GMT"), Some(1_709_251_200));
        for wrong in ["", "Sun, 06 Nov 1994 08:49 GMT", "Sun, 06 Now 1994 08:49:37 GMT", "a b c d e GMT", "0,0"] {
            assert_eq!(http_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn servers_ask_in_seconds_or_dates() {
        assert_eq!(asked("7", 0), Some(7));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_770), Some(7));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_790), Some(0));
        assert_eq!(asked("7.9", 0), Some(7));
        let headers = HeaderMap::from_iter([("retry-after-ms".parse().unwrap(), HeaderValue::from_static("250"))]);
        assert_eq!(retry_after(&headers, SystemTime::UNIX_EPOCH), Some(Duration::from_millis(250)));
        assert_eq!(asked("soon", 0), None);
        assert_eq!(asked("-1", 0), None);
    }

    #[test]
    fn waits_double_within_bounds_and_repeat_with_the_seed() {
        let waits = |seed| {
            let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(4), seed);
            (0..6).map(|_| backoff.next(None).as_secs_f64()).collect::<Vec<_>>()
        };
        for (wait, most) in waits(3).into_iter().zip([0.5, 1.0, 2.0, 4.0, 4.0, 4.0]) {
            assert!((most / 2.0..=most).contains(&wait), "{wait} of {most}");
        }
        assert_eq!(waits(3), waits(3));
        assert_ne!(waits(3), waits(4));
    }

    #[test]
    fn a_requested_wait_is_a_floor_with_a_cap() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(9), 0);
        assert_eq!(backoff.next(Some(Duration::from_secs(20))), Duration::from_secs(20));
        assert_eq!(backoff.next(Some(Duration::from_secs(100_000))), LONGEST_REQUESTED);
        assert!(backoff.next(Some(Duration::ZERO)) >= Duration::from_secs(2));
    }
}
