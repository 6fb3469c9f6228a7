//! Ansible's language: files to a [`model::Playbook`] that cannot be wrong, hosts, variables,
//! templates and conditions.
//!
//! Nothing here runs a task. The run engine goes this way:
//!
//! ```text
//! let loader    = Arc::new(loader::Disk);
//! let inventory = inventory::Inventory::load(&sources, &*loader)?;      or ::from_topology(&topology)
//! let extra     = vars::extra(&typed, &*loader)?;                       -e
//! let playbook  = load(&paths, &*loader, &Context { … })?;              every problem of every file at once
//! let hosts     = inventory.select(&[Pattern::typed("reals:!rs2")])?;   nearest name when nothing matches
//! let mut known = vars::Known::new(&inventory, extra, folder, &*loader)?;   lasting variables; grows with the run
//! let scope     = vars::Scope::new(&Arc::new(known.clone()), "rs1")     one host's variables, level by level:
//!     .with(Level::PlayVars, vars::written(&play.vars))                 …PlayVars, VarsFiles, BlockVars, TaskVars, IncludeParams
//!     .with_value(Level::Loop, "item", item);
//! let renderer  = render::Renderer::new(loader, seed);
//! let args      = renderer.in_folders(&[&task.folder]).vars(&module.args.named, &scope)?;   `omit` left out
//! let items     = renderer.loop_items(&repeat, &scope, &[&task.folder])?;
//! let verdict   = condition::evaluate(&renderer, &task.when, &scope)?;  also until, changed_when, failed_when, that
//! let text      = renderer.template_file(path, &text, TemplateOptions::default(), &scope, &[])?;
//! ```
//!
//! Values stay [`Node`](crate::base::yaml::Node)s with their places until they are rendered, so every message can
//! point into the file. Files are read through a [`SourceLoader`](files::SourceLoader) only.

mod address;
mod check;
pub mod condition;
mod context;
pub mod exercise;
pub mod files;
mod filters;
mod grading;
mod ini;
pub mod inventory;
mod literal;
pub mod loader;
mod lookup;
pub mod model;
mod names;
mod parse;
pub mod pattern;
mod place;
mod predicates;
mod problem;
mod python_json;
mod python_yaml;
mod random;
pub mod render;
mod schema;
mod task;
mod template;
mod text_filters;
mod value;
pub mod vars;
mod words;

pub use check::{Context, load, load_included};
