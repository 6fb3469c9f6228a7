//! Ansible's language: files to a [`model::Playbook`] that cannot be wrong, hosts, variables,
//! templates and conditions.
//!
//! Nothing here runs a task. The run engine goes this way:
//!
//! ```text
//! let inventory = inventory::Inventory::load(&sources, &loader)?;       hosts, groups, their variables
//! let extra     = vars::extra(&typed, &loader)?;                        -e
//! let playbook  = load(&paths, &loader, &Context { … })?;               Err: every problem of every file
//! let hosts     = inventory.select(&pattern)?;                          `reals:!rs2`, nearest name when nothing matches
//! let scope     = vars::Scope::new(…)                                   one host's variables, level by level
//! let renderer  = render::Renderer::new(loader, seed);
//! let value     = renderer.node(&node, &scope)?;                        a tree of templates → JSON
//! let go        = condition::evaluate(&renderer, &expressions, &scope)?; when, until, changed_when, that
//! ```
//!
//! Values stay [`Node`](crate::base::yaml::Node)s with their places until they are rendered, so every message can
//! point into the file. Files are read through a `SourceLoader` only.

pub mod files;
mod ini;
pub mod inventory;
mod literal;
pub mod loader;
pub mod model;
pub mod pattern;
mod place;
pub mod vars;
mod words;
