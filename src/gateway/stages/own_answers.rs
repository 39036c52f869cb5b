//! Requests that the gateway answers itself, without a worker.
//!
//! Owns what such a request costs and which of its parts its answer needs. What it says is made in the folder of its route.

use bytes::Bytes;
use http::Response;
use http::request::Parts;

use crate::dialect::ollama;
use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::Caller;
use crate::gateway::admission::rate;
use crate::gateway::connection::discard::InboundBody;
use crate::gateway::keys_api::{self, KeysRequest};
use crate::gateway::model_files::{self, FilesRequest};
use crate::gateway::request::body::{self, arriving_body};
use crate::gateway::request::envelope::Envelope;
use crate::gateway::response::local_answer::LocalAnswer;
use crate::gateway::routes::route::{FilesRoute, KeysRoute, LocalRoute, ModelsRoute, OllamaModels, Route, RouteTarget};
use crate::gateway::service::{Gateway, id_in_path};
use crate::gateway::translation::shared;
use crate::refusal::Refusal;

/// A request for such an answer.
pub(in crate::gateway) struct OwnRequest<'a> {
    pub(in crate::gateway) route: &'static Route,
    pub(in crate::gateway) parts: &'a Parts,
    pub(in crate::gateway) body: &'a mut Option<InboundBody>,
    pub(in crate::gateway) caller: &'a Caller,
    pub(in crate::gateway) record: &'a mut Record,
}

impl Gateway {
    /// Answers a request that needs no worker. It counts as one request of the caller's key, unless it is an operator's or for
    /// a page.
    ///
    /// # Errors
    /// A refusal if the rate limit of the key is reached, or the request cannot be carried out.
    pub(in crate::gateway) async fn answer_itself(&self, request: OwnRequest<'_>) -> Result<LocalAnswer, Refusal> {
        let OwnRequest { route, parts, caller, .. } = request;
        match route.target {
            RouteTarget::Worker(_) => return Err(Refusal::RouteNotFound),
            RouteTarget::Gateway(local) => {
                return self.respond_locally(local, route, parts).await.map(LocalAnswer::Whole);
            }
            RouteTarget::Page(page) => return self.pages.respond(page, parts).await.map(LocalAnswer::Whole),
            _ => {}
        }
        rate::check(caller.meter())?;
        self.take_shared(route, caller, request.record).await?;
        rate::charge(caller.meter())?;
        match route.target {
            RouteTarget::Models(models_route) => {
                self.respond_about_models(models_route, request).await.map(LocalAnswer::Whole)
            }
            RouteTarget::Files(files_route) => self.respond_about_files(files_route, request).await,
            RouteTarget::Keys(keys_route) => self.respond_about_keys(keys_route, request).await.map(LocalAnswer::Whole),
            RouteTarget::Usage(usage_route) => {
                self.usage_api.respond(usage_route, parts, caller).await.map(LocalAnswer::Whole)
            }
            RouteTarget::Hub(hub_route) => {
                let id = id_in_path(route, parts);
                self.hub_api.respond(hub_route, &id, parts, caller).await.map(LocalAnswer::Whole)
            }
            RouteTarget::Live(live_route) => {
                self.live_api.respond(live_route, &id_in_path(route, parts), parts, caller).await
            }
            RouteTarget::Worker(_) | RouteTarget::Gateway(_) | RouteTarget::Page(_) => Err(Refusal::RouteNotFound),
        }
    }

    /// Answers a route that is not served by a worker.
    ///
    /// # Errors
    /// The refusal of the responder that the application supplied.
    pub(in crate::gateway) async fn respond_locally(
        &self,
        local: LocalRoute,
        route: &Route,
        parts: &Parts,
    ) -> Result<Response<Bytes>, Refusal> {
        (self.local_responder)(local, &id_in_path(route, parts), parts).await
    }

    async fn respond_about_keys(
        &self,
        keys_route: KeysRoute,
        request: OwnRequest<'_>,
    ) -> Result<Response<Bytes>, Refusal> {
        let OwnRequest { route, parts, body, caller, record } = request;
        let body = self.own_body(keys_route.has_body(), route, parts, body).await?;
        let (id, query, accounts) = (&id_in_path(route, parts), parts.uri.query(), self.authenticator.accounts());
        if let Some(name) = keys_api::name_in(&body).filter(|_| id.is_empty()) {
            record.set_act_target(&name);
        }
        let request = KeysRequest { route: keys_route, id, query, body: &body, caller, accounts };
        self.keys_api.respond(request).await
    }

    /// Lists show models that have come into the models folder since the last scan.
    async fn respond_about_models(
        &self,
        models_route: ModelsRoute,
        request: OwnRequest<'_>,
    ) -> Result<Response<Bytes>, Refusal> {
        let OwnRequest { route, parts, body, caller, record } = request;
        let name = match models_route {
            ModelsRoute::LoadNamed | ModelsRoute::UnloadNamed => {
                let codings = body::content_codings(&parts.headers)?;
                let body = arriving_body::read_body(body.take(), route, &codings, &self.body_limits).await?;
                Envelope::read(route.path, &parts.headers, &body).await?.required_model()?
            }
            ModelsRoute::Ollama(OllamaModels::Show) => {
                let body = self.own_body(true, route, parts, body).await?;
                let name = ollama::read_shown(&body).map_err(shared::refusal_of)?;
                self.model_queues.current().without_default_tag(&name).to_owned()
            }
            _ => id_in_path(route, parts),
        };
        record.set_act_target(&name);
        let may_be_new = match models_route {
            ModelsRoute::All | ModelsRoute::Of(_) | ModelsRoute::Ollama(OllamaModels::Tags) => true,
            // It needs no key, so it orders no scan.
            ModelsRoute::TeiInfo => false,
            // Nothing that has just come is loaded.
            ModelsRoute::Ollama(OllamaModels::Version | OllamaModels::Loaded | OllamaModels::Change) => {
                let table = self.model_queues.current();
                return self.models_api.respond(models_route, &name, "", caller, &table);
            }
            // A file of this name comes before a pattern.
            _ => self.model_queues.current().find(&name).is_none(),
        };
        if may_be_new {
            self.model_queues.scan_for(None).await;
        }
        let query = parts.uri.query().unwrap_or_default();
        self.models_api.respond(models_route, &name, query, caller, &self.model_queues.current())
    }

    async fn respond_about_files(
        &self,
        files_route: FilesRoute,
        request: OwnRequest<'_>,
    ) -> Result<LocalAnswer, Refusal> {
        let OwnRequest { route, parts, body, caller, record } = request;
        if matches!(files_route, FilesRoute::Remove | FilesRoute::OllamaDelete) {
            // Which of them are in use is not known before.
            self.model_queues.models_known().await?;
        }
        let read = self.own_body(files_route.has_body(), route, parts, body).await?;
        let id = id_in_path(route, parts);
        let models = self.model_queues.snapshot();
        record.set_act_target(model_files::named_in(&read).as_deref().unwrap_or(&id));
        let (id, headers) = (id.as_str(), &parts.headers);
        let request = FilesRequest { route: files_route, id, headers, body: &read, caller, models: &models };
        self.model_files.respond(request).await
    }

    /// Returns the whole body of a request whose route has one.
    async fn own_body(
        &self,
        has_body: bool,
        route: &Route,
        parts: &Parts,
        body: &mut Option<InboundBody>,
    ) -> Result<Bytes, Refusal> {
        if !has_body {
            return Ok(Bytes::new());
        }
        let codings = body::content_codings(&parts.headers)?;
        Ok(arriving_body::read_body(body.take(), route, &codings, &self.body_limits).await?.to_bytes())
    }
}
