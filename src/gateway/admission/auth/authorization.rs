//! What a caller is authorized to do: the scopes of its key, and the models that the key may use.
//!
//! Adds these checks to [`Caller`]. Limits and budgets are no part of them.

use super::caller::Caller;
use crate::fleet::ModelInfo;
use crate::gateway::routes::route::{Route, RouteAccess};
use crate::keys::Scope;
use crate::models::shown_name;
use crate::refusal::Refusal;

impl Caller {
    /// Checks that the caller has the scope that the route needs.
    ///
    /// # Errors
    /// 403 when it has not.
    pub(crate) fn check_scope(&self, route: &Route) -> Result<(), Refusal> {
        match route.access {
            RouteAccess::Open | RouteAccess::AnyKey => Ok(()),
            RouteAccess::Key(scope) => self.require_scope(scope),
            RouteAccess::Metrics => self.require_scope(Scope::Metrics),
        }
    }

    /// Checks that the caller has this scope.
    ///
    /// # Errors
    /// 403 when it has not.
    pub(super) fn require_scope(&self, scope: Scope) -> Result<(), Refusal> {
        if self.has_scope(scope) { Ok(()) } else { Err(Refusal::ScopeRequired(scope.as_str())) }
    }

    /// Returns whether the caller may do what this scope allows.
    pub(crate) fn has_scope(&self, scope: Scope) -> bool {
        match self.key() {
            Some(key) => key.has(scope),
            None => scope == Scope::Inference || !self.is_platform(),
        }
    }

    /// Checks that the caller's key may use a model, by its id, an alias or its tier.
    ///
    /// # Errors
    /// 403 when it may not.
    pub(crate) fn check_model(&self, model: &ModelInfo) -> Result<(), Refusal> {
        self.check_model_as(model, None)
    }

    /// Checks that the caller may use a model of this name that is not served.
    ///
    /// # Errors
    /// 403 when the caller's key names its models, and this is none of them.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), Refusal> {
        match self.key() {
            Some(key) if !key.may_use(std::iter::once(name)) => Err(Refusal::ModelNotAllowed(shown_name(name))),
            _ => Ok(()),
        }
    }

    /// Checks that the caller's key may use a model, or at least one of its adapters.
    ///
    /// # Errors
    /// 403 when it may not.
    pub(crate) fn check_model_or_adapter(&self, model: &ModelInfo) -> Result<(), Refusal> {
        let refused = self.check_model(model);
        let may_use = |adapter: &str| self.check_model_as(model, Some(&model.id_with(adapter))).is_ok();
        if refused.is_err() && model.adapters.names().any(may_use) { Ok(()) } else { refused }
    }

    /// Checks like [`Caller::check_model`], but for a model that is a pattern the name that the request uses counts too, and
    /// for an adapter only names with it, or the tier.
    ///
    /// # Errors
    /// 403 when the caller's key may not use the model.
    pub(crate) fn check_model_as(&self, model: &ModelInfo, asked: Option<&str>) -> Result<(), Refusal> {
        if let Some(adapter) = asked.and_then(|asked| model.adapter_in(asked)) {
            return self.check_adapter(model, adapter);
        }
        let aliases = model.aliases.iter().chain(&model.hidden_aliases).chain(&model.tier).map(String::as_str);
        let is_match = |asked: &&str| model.pattern.as_ref().is_some_and(|pattern| pattern.has_match(asked));
        let names = std::iter::once(model.id.as_str()).chain(aliases).chain(asked.filter(is_match));
        match self.key() {
            Some(key) if !key.may_use(names) => Err(Refusal::ModelNotAllowed(model.id.clone())),
            _ => Ok(()),
        }
    }

    fn check_adapter(&self, model: &ModelInfo, adapter: &str) -> Result<(), Refusal> {
        let Some(key) = self.key() else { return Ok(()) };
        let names: Vec<String> =
            model.names().map(|name| format!("{name}:{adapter}")).chain(model.tier.clone()).collect();
        match key.may_use(names.iter().map(String::as_str)) {
            true => Ok(()),
            false => Err(Refusal::ModelNotAllowed(model.id_with(adapter))),
        }
    }
}
