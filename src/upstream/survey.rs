//! Who could be asked at this moment, and why not the others? What operators are told of one choice; no request needs it.

use serde::Serialize;

use super::{Member, Upstream};
use crate::backend::{Seat, State};

/// A backend, as one choice sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Surveyed {
    /// Its name.
    pub backend: String,
    /// How it is.
    pub state: &'static str,
    /// Which tier it is in.
    pub tier: u32,
    /// Its share of the requests; less than what is configured in a slow start.
    pub weight: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// The most that it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
    /// Why it cannot be chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<WhyNot>,
}

/// Why a backend cannot be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyNot {
    /// It has a weight of 0.
    Weight,
    /// Its state does not allow it.
    State,
    /// Another tier carries everything.
    Tier,
    /// The request has been there.
    Tried,
    /// It has as many in flight as it may have.
    Limit,
    /// Its quota is used up.
    Quota,
    /// It is on trial, which one request at a time is.
    Trial,
}

impl Upstream {
    /// All backends, for a request that has tried these.
    pub fn survey(&self, tried: &[Seat]) -> Vec<Surveyed> {
        let choice = self.choice.load();
        let serving = |seat: Seat| {
            let weight_in = |members: &crate::balance::Members| {
                let place = members.seats().iter().position(|other| *other == seat)?;
                members.weights().get(place).copied()
            };
            choice.as_ref().and_then(|choice| choice.members().find_map(weight_in))
        };
        let surveyed = |member: &Member| {
            let seat = member.backend.seat;
            let weight = serving(seat);
            let is_tried = tried.contains(&seat);
            Surveyed {
                backend: member.backend.name.to_string(),
                state: member.backend.state().as_str(),
                tier: member.tier,
                weight: weight.unwrap_or(member.weight),
                in_flight: self.loads.in_flight(seat),
                most: member.most(),
                why: self.why_not(member, weight.is_some(), is_tried),
            }
        };
        self.members.iter().map(surveyed).collect()
    }

    /// The policy itself is not asked: of those who can be chosen, the attempts say who was.
    fn why_not(&self, member: &Member, serves: bool, is_tried: bool) -> Option<WhyNot> {
        match () {
            () if member.weight == 0 => Some(WhyNot::Weight),
            () if is_tried => Some(WhyNot::Tried),
            () if !serves && !matches!(member.backend.state(), State::Healthy | State::Pending) => Some(WhyNot::State),
            () if !serves => Some(WhyNot::Tier),
            () if self.has_enough(member) => Some(WhyNot::Limit),
            () if self.is_full(member) => Some(WhyNot::Quota),
            () if member.backend.is_on_trial() => Some(WhyNot::Trial),
            () => None,
        }
    }
}
