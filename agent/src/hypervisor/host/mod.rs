//! Kind `host`: the host itself, in or out of service.
//!
//! Create brings up networks, pools and the site's activation, in this order; destroy takes them down in
//! reverse. Nothing is ever wiped: networks and pools stay defined, and what pools hold stays.

mod activation;
mod drain;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzed;
mod object;
mod preflight;
mod readiness;
mod turn;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hostler_common::id::HypervisorId;
use hostler_common::rpc::hostler::agent::v1::Observed;

use super::probe::Probe;
use super::{Aim, SetupError, Site, StepFault};
use crate::config::{AbsolutePath, HostConfig};
use crate::executor::step::Step;
use crate::libvirt::Presence;
use activation::{Activate, Activation, ActivationState, Deactivate};
use drain::Drain;
use object::{Bring, Network, Object, Pool, Take};
use preflight::Preflight;
use readiness::AwaitReadiness;
use turn::Turn;

/// The host as a hypervisor.
pub(super) struct Host {
    config: HostConfig,
    site: Arc<Site>,
    networks: Vec<Arc<Network>>,
    pools: Vec<Arc<Pool>>,
    activation: Option<Arc<Activation>>,
    /// What the site's own start command says.
    activation_log: PathBuf,
    probe: Option<Probe>,
}

impl Host {
    /// Reads the definitions and finds the programs that `config` names.
    pub(super) fn new(config: &HostConfig, site: Arc<Site>) -> Result<Self, SetupError> {
        let program = |source| SetupError::Program {
            id: config.id.clone(),
            source,
        };
        let networks = config.networks.iter().map(|network| {
            let xml = read_definition(config, network.xml.as_ref(), "network", network.name.as_str())?;
            Ok(Arc::new(Network::new(network.name.clone(), xml)))
        });
        let pools = config.pools.iter().map(|pool| {
            let xml = read_definition(config, pool.xml.as_ref(), "pool", pool.name.as_str())?;
            Ok(Arc::new(Pool::new(pool.name.clone(), xml)))
        });
        let activation = config
            .activation
            .as_ref()
            .map(|activation| Activation::new(activation, Turn::new(&site.run_dir, &config.id)?))
            .transpose()
            .map_err(program)?;
        Ok(Self {
            networks: networks.collect::<Result<_, SetupError>>()?,
            pools: pools.collect::<Result<_, SetupError>>()?,
            activation: activation.map(Arc::new),
            activation_log: site.state_dir.join(format!("activation/{}.log", config.id)),
            probe: Probe::new(config.readiness.as_ref(), None).map_err(program)?,
            config: config.clone(),
            site,
        })
    }

    pub(super) fn id(&self) -> &HypervisorId {
        &self.config.id
    }

    /// The steps of an operation, in order.
    pub(super) fn plan(self: &Arc<Self>, aim: Aim) -> Vec<Box<dyn Step>> {
        match aim {
            Aim::InService => self.plan_create(),
            Aim::OutOfService => self.plan_destroy(),
        }
    }

    fn plan_create(self: &Arc<Self>) -> Vec<Box<dyn Step>> {
        let mut steps: Vec<Box<dyn Step>> = vec![Box::new(Preflight::new(self.clone()))];
        for network in &self.networks {
            steps.push(Box::new(Bring::new(network.clone(), self.site.clone())));
        }
        for pool in &self.pools {
            steps.push(Box::new(Bring::new(pool.clone(), self.site.clone())));
        }
        if let Some(activation) = &self.activation {
            steps.push(Box::new(Activate::new(self.clone(), activation.clone())));
        }
        if self.probe.is_some() {
            steps.push(Box::new(AwaitReadiness::new(self.clone())));
        }
        steps
    }

    fn plan_destroy(self: &Arc<Self>) -> Vec<Box<dyn Step>> {
        let mut steps: Vec<Box<dyn Step>> = vec![Box::new(Drain::new(self.clone()))];
        if let Some(activation) = &self.activation {
            steps.push(Box::new(Deactivate::new(self.clone(), activation.clone())));
        }
        for pool in self.pools.iter().rev() {
            steps.push(Box::new(Take::new(pool.clone(), self.clone())));
        }
        for network in self.networks.iter().rev() {
            steps.push(Box::new(Take::new(network.clone(), self.clone())));
        }
        steps
    }

    /// Whether the host is in service, and why that is what is seen.
    ///
    /// The activation decides where there is one, since networks and pools may stay up for domains that were left
    /// running. It is in service only with all of them up; active without them is a state of neither kind.
    pub(super) fn observe(&self) -> (Observed, String) {
        match self.look() {
            Err(fault) => (
                Observed::Unknown,
                hostler_common::error::Chain(&fault).to_string(),
            ),
            Ok(seen) => seen,
        }
    }

    fn look(&self) -> Result<(Observed, String), StepFault> {
        let mut up = Vec::new();
        let mut down = Vec::new();
        let mut sort = |object: &dyn Object| -> Result<(), StepFault> {
            match object.presence(&self.site.libvirt)? {
                Presence::Active => up.push(object.to_string()),
                Presence::Inactive => down.push(format!("{object} is inactive")),
                Presence::Absent => down.push(format!("{object} is not defined")),
            }
            Ok(())
        };
        self.networks
            .iter()
            .try_for_each(|network| sort(network.as_ref()))?;
        self.pools.iter().try_for_each(|pool| sort(pool.as_ref()))?;
        let activation = self
            .activation
            .as_ref()
            .map(|activation| activation.state(self.site.call_timeout));
        Ok(match activation.transpose()? {
            None if down.is_empty() => (Observed::InService, String::new()),
            None if up.is_empty() => (Observed::OutOfService, String::new()),
            // Create completes it, so it is offered.
            None => (Observed::OutOfService, format!("partly up: {}", down.join(", "))),
            Some(ActivationState::Active) if down.is_empty() => (Observed::InService, String::new()),
            Some(ActivationState::Active) => (
                Observed::Unknown,
                format!("the activation is active but {}", down.join(", ")),
            ),
            Some(ActivationState::Inactive) if up.is_empty() => (Observed::OutOfService, String::new()),
            Some(ActivationState::Inactive) => (
                Observed::OutOfService,
                format!("the activation is inactive; still active: {}", up.join(", ")),
            ),
            Some(ActivationState::Partial { detail }) => (Observed::Unknown, detail),
        })
    }
}

/// Reads an object's XML and refuses one that would define something else than is configured.
fn read_definition(
    config: &HostConfig,
    path: Option<&AbsolutePath>,
    tag: &str,
    name: &str,
) -> Result<Option<String>, SetupError> {
    let Some(path) = path else { return Ok(None) };
    let xml = std::fs::read_to_string(path).map_err(|source| SetupError::Read {
        id: config.id.clone(),
        path: path.to_path_buf(),
        source,
    })?;
    match definition_problem(&xml, tag, name) {
        None => Ok(Some(xml)),
        Some(problem) => Err(SetupError::Definition {
            id: config.id.clone(),
            path: Path::to_path_buf(path),
            object: format!("{tag} {name}"),
            problem,
        }),
    }
}

fn definition_problem(xml: &str, tag: &str, name: &str) -> Option<String> {
    let document = match roxmltree::Document::parse(xml) {
        Ok(document) => document,
        Err(error) => return Some(error.to_string()),
    };
    let root = document.root_element();
    if !root.has_tag_name(tag) {
        return Some(format!("it is a <{}>", root.tag_name().name()));
    }
    let named = root.children().find(|node| node.has_tag_name("name"));
    match named.and_then(|node| node.text()).map(str::trim) {
        Some(found) if found == name => None,
        Some(found) => Some(format!("it names {found}")),
        None => Some("it has no <name>".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_of_something_else_is_refused() {
        let problem = |xml| definition_problem(xml, "network", "demo");
        assert_eq!(problem("<network><name>demo</name></network>"), None);
        assert_eq!(problem("<network><name>\n demo </name></network>"), None);
        assert_eq!(
            problem("<pool><name>demo</name></pool>"),
            Some("it is a <pool>".into())
        );
        assert_eq!(
            problem("<network><name>other</name></network>"),
            Some("it names other".into())
        );
        assert_eq!(problem("<network/>"), Some("it has no <name>".into()));
        assert!(problem("<network>").is_some());
    }
}
