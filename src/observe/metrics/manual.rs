//! What do people read about the metrics? `docs/metrics.md`, made of the catalogue.

use std::fmt::Write;

use super::catalogue::{CATALOGUE, Family};

const BEGINNING: &str = "\
# Metrics

<!-- Made of src/observe/metrics/catalogue.rs: change it there, then run `BLESS=1 cargo test --lib observe::metrics`. -->

`GET /metrics` on the [admin address](configuration.md#admin-for-operators-and-their-tools) answers in Prometheus's text
format, which Prometheus, VictoriaMetrics, the OpenTelemetry collector and others read:

```yaml
# prometheus.yml
scrape_configs:
  - job_name: portcullis
    static_configs:
      - targets: [\"127.0.0.1:9901\"]
```

- Counters go on over a reload for every route, backend and listener that stays. What is gone from the configuration is
  gone from the next page; what comes back begins at 0.
- How many series there are follows from the configuration, never from what clients send: there is no label with a path, a
  host, an address of a client or a name of a user. A route has 34 series for its two histograms, and one for each status
  that it has answered with.
- A metric without a series yet is named all the same, with its help.
- Times of a request are measured as in the [access log](configuration.md#log-what-is-told-and-where), and a `reason` is the
  same word as there and in `Proxy-Status`.
";

const END: &str = "
## What to watch

| Question | PromQL |
| --- | --- |
| How many requests a second, by route? | `sum by (route) (rate(portcullis_requests_total[1m]))` |
| Which share of them fails by our or a backend's fault? | `sum(rate(portcullis_requests_total{status=~\"5..\"}[5m])) / sum(rate(portcullis_requests_total[5m]))` |
| Why? | `sum by (reason) (rate(portcullis_request_failures_total[5m]))` |
| How slow is the slowest hundredth, by route? | `histogram_quantile(0.99, sum by (route, le) (rate(portcullis_request_duration_seconds_bucket[5m])))` |
| Which backends do not serve? | `portcullis_backend_state{state=~\"UNREACHABLE\\|EJECTED\\|THROTTLED\"} == 1` |
| Does the cache help? | `sum(rate(portcullis_cache_requests_total{outcome=~\"hit\\|collapsed\\|stale\\|revalidated\"}[5m])) / sum(rate(portcullis_cache_requests_total[5m]))` |
| Which certificates end within two weeks? | `portcullis_certificate_expiry_timestamp_seconds - time() < 14 * 86400` |
| Did the last reload fail? | `portcullis_last_reload_successful == 0` |
| Do all front doors have the same configuration? | `count(count by (hash) (portcullis_config_info)) > 1` says no |
";

/// The whole text.
pub fn manual() -> String {
    let mut text = BEGINNING.to_owned();
    for section in CATALOGUE {
        // Writing to a string never fails.
        let _ = write!(text, "\n## {}\n\n| Name | Kind | Unit | Labels | Meaning |\n", section.about);
        text.push_str("| --- | --- | --- | --- | --- |\n");
        section.families.iter().for_each(|family| row(&mut text, family));
    }
    text + END
}

fn row(text: &mut String, family: &Family) {
    let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
    let (kind, unit, labels) = (family.kind.word(), family.unit(), labels.join(", "));
    let _ = writeln!(text, "| `{}` | {kind} | {unit} | {labels} | {} |", family.name, family.help);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_says_what_the_catalogue_says() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(file, manual()).unwrap();
        }
        let written = std::fs::read_to_string(file).unwrap_or_default();
        assert!(written == manual(), "docs/metrics.md is not made of this catalogue: run this test with BLESS=1");
    }
}
