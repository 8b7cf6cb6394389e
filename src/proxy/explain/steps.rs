//! What does a request pass before a backend is asked, in order? What each step is set to, and which of them has the last
//! word, as the corridor has just said.

use std::ops::ControlFlow;

use super::found::{Step, Verdict};
use super::name_of;
use crate::answer::Refusal;
use crate::config::{Action, AddressList, AuthBy, HeaderEdits, RateKey, RateLimit, Route};
use crate::filter::Answer;
use crate::proxy::exchange::Exchange;
use crate::proxy::snapshot::ListenerPlan;

/// The steps of a request that ended like this.
pub(super) fn of(
    exchange: &Exchange,
    listener: Option<&ListenerPlan>,
    route: Option<&Route>,
    outcome: &ControlFlow<Answer>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(port) = listener.and_then(|listener| listener.redirect_to_https) {
        steps.push(step("redirect_to_https", format!("sends everybody to https, port {port}")));
    }
    if let Some(route) = route {
        of_admission(exchange, route, &mut steps);
        of_filters(route, &mut steps);
        of_the_answer(route, &mut steps);
    }
    let end = match outcome {
        ControlFlow::Continue(()) => return steps,
        ControlFlow::Break(Answer::Refuse(refusal)) => (who_refuses(*refusal), Verdict::Refuses),
        ControlFlow::Break(Answer::Reply { .. }) => (who_answers(&steps), Verdict::Answers),
    };
    let at = steps.iter().position(|step| Some(step.step) == end.0);
    for (place, step) in steps.iter_mut().enumerate() {
        step.verdict = match at {
            Some(at) if place < at => Verdict::Passes,
            Some(at) if place == at => end.1,
            Some(_) | None => Verdict::NotReached,
        };
    }
    steps
}

fn step(step: &'static str, what: impl Into<String>) -> Step {
    Step { step, what: what.into(), verdict: Verdict::Passes }
}

/// The step that has said this; `None` where it was before all of them.
fn who_refuses(refusal: Refusal) -> Option<&'static str> {
    use crate::answer::Forbidden;
    if let Refusal::Forbidden(Forbidden::Address) = refusal {
        return Some("addresses");
    }
    if let Refusal::Maintenance { .. } = refusal {
        return Some("maintenance");
    }
    if let Refusal::Unauthenticated(_) | Refusal::Forbidden(_) | Refusal::AuthUnavailable = refusal {
        return Some("auth");
    }
    if let Refusal::RateLimited { .. } = refusal {
        return Some("rate_limits");
    }
    if refusal == Refusal::BodyTooLarge { Some("body_limit") } else { None }
}

/// The first that answers by itself; a preflight is answered by `cors`, where nothing else is.
fn who_answers(steps: &[Step]) -> Option<&'static str> {
    let answers = ["redirect_to_https", "redirect", "respond"];
    let by_itself = steps.iter().find(|step| answers.contains(&step.step)).map(|step| step.step);
    by_itself.or(Some("cors"))
}

fn of_admission(exchange: &Exchange, route: &Route, steps: &mut Vec<Step>) {
    if !route.allow.is_empty() || !route.deny.is_empty() {
        let lists = [("deny", &route.deny), ("allow", &route.allow)];
        let told =
            lists.iter().filter(|(_, list)| !list.is_empty()).map(|(word, list)| format!("{word} {}", of_list(list)));
        steps.push(step("addresses", told.collect::<Vec<_>>().join(", ")));
    }
    if let Some(closed) = &route.maintenance {
        steps.push(step("maintenance", format!("closed, but for {} networks", closed.except.len())));
    }
    if route.cors.is_some() {
        steps.push(step("cors", "answers preflights, and tells browsers which pages may use the answer"));
    }
    if let Some(auth) = &route.auth {
        let by = match &auth.by {
            AuthBy::Basic(_) => "a name and a password",
            AuthBy::Jwt(_) => "a signed token",
            AuthBy::Keys { .. } => "an API key",
        };
        let who = exchange.identity.as_deref().map_or_else(String::new, |who| format!("; it is {}", name_of(who)));
        steps.push(step("auth", format!("asks for {by}{who}")));
    }
    if !route.rate_limits.is_empty() {
        let told = route.rate_limits.iter().map(|limit| of_limit(exchange, limit));
        steps.push(step("rate_limits", told.collect::<Vec<_>>().join("; ")));
    }
}

fn of_list(list: &AddressList) -> String {
    match (list.networks.len(), list.files.len()) {
        (networks, 0) => format!("{networks} networks"),
        (networks, files) => format!("{networks} networks and {files} files"),
    }
}

fn of_limit(exchange: &Exchange, limit: &RateLimit) -> String {
    let key = match &limit.key {
        RateKey::ClientAddress => "client address".to_owned(),
        RateKey::ApiKey => "name".to_owned(),
        RateKey::Header(name) => format!("field {name}"),
        RateKey::Claim(name) => format!("claim {name}"),
        RateKey::Route => "route".to_owned(),
    };
    let standing = exchange.standings.iter().find(|standing| standing.limit.name == limit.name);
    let cost = standing.map_or(limit.cost, |standing| standing.cost);
    let dry = if limit.dry_run { ", a dry run" } else { "" };
    format!(
        "{} ({} in {:?}, by {key}, burst {}{dry}) charges {cost}",
        limit.name, limit.count, limit.period, limit.burst
    )
}

fn of_filters(route: &Route, steps: &mut Vec<Step>) {
    steps.push(step("body_limit", format!("{} bytes", route.body_limit)));
    let rewrite = &route.rewrite;
    let rewrites = [("strip", &rewrite.strip_prefix), ("add", &rewrite.add_prefix)];
    let mut told: Vec<_> =
        rewrites.iter().filter_map(|(word, prefix)| Some(format!("{word} {}", prefix.as_ref()?))).collect();
    told.extend(rewrite.host.as_ref().map(|host| format!("host {}", String::from_utf8_lossy(host.as_bytes()))));
    if !told.is_empty() {
        steps.push(step("rewrite", told.join(", ")));
    }
    steps.extend(of_edits(&route.request_headers).map(|edits| step("headers.request", edits)));
    if !route.filters.is_empty() {
        steps.push(step("filters", format!("{} of the program's own", route.filters.len())));
    }
    match &route.action {
        Action::Upstream(_) => {}
        Action::Redirect { to, status } => steps.push(step("redirect", format!("{status} to {to}"))),
        Action::Respond { status, body } => {
            steps.push(step("respond", format!("{status} with {} bytes", body.len())));
        }
    }
}

/// Names alone: values may be secret.
fn of_edits(edits: &HeaderEdits) -> Option<String> {
    let names = |list: &[(http::HeaderName, http::HeaderValue)]| {
        list.iter().map(|(name, _)| name.as_str().to_owned()).collect::<Vec<_>>()
    };
    let removed = edits.remove.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
    let all = [("remove", removed), ("set", names(&edits.set)), ("add", names(&edits.add))];
    let told: Vec<_> = all
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(word, names)| format!("{word} {}", names.join(" ")))
        .collect();
    (!told.is_empty()).then(|| told.join(", "))
}

/// What happens to what comes back.
fn of_the_answer(route: &Route, steps: &mut Vec<Step>) {
    steps.extend(of_edits(&route.response_headers).map(|edits| step("headers.response", edits)));
    if let Some(compress) = &route.compress {
        let names: Vec<_> = compress.algorithms.iter().map(|coding| coding.name()).collect();
        steps.push(step(
            "compress",
            format!("answers of {} bytes and more may leave in {}", compress.min_size, names.join(", ")),
        ));
    }
}
