//! Which route a request means, and whether its caller may use it: known before a byte of the body is read.

use http::request::Parts;

use crate::gateway::accounting::record::Record;
use crate::gateway::admission::auth::RequestSource;
use crate::gateway::prepared_request::Admitted;
use crate::gateway::response_context::ResponseContext;
use crate::gateway::routes::route::RouteTarget;
use crate::gateway::service::{Gateway, id_in_path};
use crate::refusal::{Refusal, Shape};

impl Gateway {
    /// Finds the route of a request, and authenticates its caller.
    ///
    /// # Errors
    /// There is no such route, or the caller may not use it.
    pub(in crate::gateway) fn admit(
        &self,
        mut parts: Box<Parts>,
        source: RequestSource,
        record: &mut Record,
        context: &mut ResponseContext,
    ) -> Result<Admitted, Refusal> {
        // Stage 2, route.
        let (route, deployment) = self.find_route(&mut parts)?;
        record.route = Some(route.path);
        if route.shape != Shape::OpenAi {
            context.shape = route.shape;
        }
        record.counted = matches!(route.target, RouteTarget::Models(_) | RouteTarget::Worker(_));
        record.is_for_worker = matches!(route.target, RouteTarget::Worker(_));
        // Stage 3, authentication: before a byte of the body is read.
        let caller = self.authenticator.authenticate(&parts, route, source, record.arrived())?;
        record.set_key(caller.key_id());
        record.meter = caller.meter().cloned();
        context.meter = record.meter.clone();
        caller.check_scope(route)?;
        if route.is_admin_act() {
            record.begin_act(route, id_in_path(route, &parts));
        }
        Ok(Admitted { route, deployment, parts, caller })
    }
}
