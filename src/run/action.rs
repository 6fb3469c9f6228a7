//! What a task does: the controller's own actions, and the way of a module to its host.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::{sleep, timeout};

use super::connection::{self, Connection};
use super::executor::{Effect, Include, Run, Trouble, kind_of, layer, seconds};
use super::keyword;
use super::result::{self, Object};
use super::staged;
use crate::base::diagnostic::Diagnostic;
use crate::base::wire::TaskRequest;
use crate::base::yaml::Node;
use crate::playbook::model::{Action, Args, DebugShow, IncludeTasks, Module, Vars};
use crate::playbook::vars::{Layer, Level, Scope, Variable};
use crate::remote::transport::RemoteError;
use crate::task::kind::{self, ModuleSpec, Runs};

/// A host that is reached but does not answer a task for so long is given up when nobody
/// said otherwise. Installing packages on a machine without KVM takes ten minutes.
const DEADLINE: Duration = Duration::from_secs(45 * 60);

/// Each takes ten seconds at the most; see `remote::openssh`.
const GRADING_CONNECT_RETRIES: u32 = 5;

/// Does what the task says, once.
pub(super) async fn perform(
    run: &mut Run<'_>,
    scope: &Scope,
    item: Option<&Value>,
) -> Result<Object, Trouble> {
    let task = Arc::clone(&run.job.task);
    match &task.action {
        Action::Module(module) => module_call(run, module, scope).await,
        Action::IncludeTasks(include) => include_tasks(run, include, scope, item),
        Action::IncludeVars(args) => include_vars(run, args, scope),
        Action::SetFact { facts, .. } => set_fact(run, facts, scope),
        Action::Assert {
            that,
            fail_msg,
            success_msg,
            ..
        } => assert(run, that, fail_msg.as_ref(), success_msg.as_ref(), scope),
        Action::Debug { show, verbosity } => debug(run, show, verbosity.as_ref(), scope),
        Action::Fail { msg } => {
            let msg = render_or(run, msg.as_ref(), scope, "Failed as requested from task")?;
            Ok(result::object(
                json!({"changed": false, "failed": true, "msg": msg}),
            ))
        }
        Action::Pause(args) => pause(run, args, scope).await,
        Action::AddHost(args) => add_host(run, args, scope),
        Action::GroupBy(args) => group_by(run, args, scope),
        Action::Meta(_) => Ok(Object::new()),
    }
}

fn render_or(
    run: &Run<'_>,
    node: Option<&Node>,
    scope: &Scope,
    otherwise: &str,
) -> Result<Value, Diagnostic> {
    match node {
        Some(node) => run.render(node, scope),
        None => Ok(json!(otherwise)),
    }
}

fn set_fact(run: &Run<'_>, facts: &Vars, scope: &Scope) -> Result<Object, Trouble> {
    let mut values = Map::new();
    for (name, node) in &facts.0 {
        let name = match run.render(name, scope)? {
            Value::String(name) => name,
            _ => name.key_text(),
        };
        values.insert(name, run.render(node, scope)?);
    }
    Ok(result::object(
        json!({"ansible_facts": values, "changed": false}),
    ))
}

fn assert(
    run: &Run<'_>,
    that: &[Node],
    fail_msg: Option<&Node>,
    success_msg: Option<&Node>,
    scope: &Scope,
) -> Result<Object, Trouble> {
    for each in that {
        if !run.holds(std::slice::from_ref(each), scope)? {
            let msg = render_or(run, fail_msg, scope, "Assertion failed")?;
            return Ok(result::object(json!({
                "assertion": each.to_json(),
                "changed": false,
                "evaluated_to": false,
                "failed": true,
                "msg": msg,
            })));
        }
    }
    let msg = render_or(run, success_msg, scope, "All assertions passed")?;
    Ok(result::object(json!({"changed": false, "msg": msg})))
}

fn debug(
    run: &Run<'_>,
    show: &DebugShow,
    verbosity: Option<&Node>,
    scope: &Scope,
) -> Result<Object, Trouble> {
    if let Some(node) = verbosity {
        let from = keyword::integer(&run.render(node, scope)?).unwrap_or(0);
        if i64::from(run.services.flags.verbosity) < from {
            return Ok(result::object(json!({
                "changed": false,
                "skipped": true,
                "skipped_reason": "Verbosity threshold not met.",
            })));
        }
    }
    let mut done = result::object(json!({"changed": false}));
    match show {
        DebugShow::Greeting => {
            done.insert("msg".to_owned(), json!("Hello world!"));
        }
        DebugShow::Msg(node) => {
            let msg = run.render(node, scope)?;
            done.insert("msg".to_owned(), msg);
        }
        DebugShow::Var(node) => {
            let value = run
                .services
                .renderer
                .expression(node, scope)
                .unwrap_or_else(|problem| {
                    // As ansible-core 2.19 shows what cannot be evaluated.
                    let message = problem.message.replace('`', "'");
                    json!(format!("<< error 1 - {message} >>"))
                });
            done.insert(node.key_text(), value);
        }
    }
    Ok(done)
}

fn include_tasks(
    run: &mut Run<'_>,
    include: &IncludeTasks,
    scope: &Scope,
    item: Option<&Value>,
) -> Result<Object, Trouble> {
    let file = match run.render(&include.file, scope)? {
        Value::String(file) => file,
        other => {
            return Err(Diagnostic::error(format!(
                "`include_tasks` takes a file's name, this is {}",
                kind_of(&other)
            ))
            .at(&include.file.origin)
            .into());
        }
    };
    let control = &run.job.task.loop_control;
    let mut params = Vec::new();
    let mut label = None;
    if let Some(item) = item {
        params.push((control.loop_var.clone(), item.clone()));
        params.push(("ansible_loop_var".to_owned(), json!(control.loop_var)));
        for name in control
            .index_var
            .iter()
            .map(String::as_str)
            .chain(["ansible_loop"])
        {
            if let Some(Variable::Found(value)) = scope.get(name) {
                params.push((name.to_owned(), value.clone()));
            }
        }
        label = Some(match &control.label {
            Some(node) => run.render(node, scope)?,
            None => item.clone(),
        });
    }
    run.effects.push(Effect::Include(Include {
        file: file.clone(),
        params: layer(params),
        label,
    }));
    Ok(result::object(json!({"changed": false, "include": file})))
}

fn include_vars(run: &Run<'_>, args: &Args, scope: &Scope) -> Result<Object, Trouble> {
    let args = arguments(run, "include_vars", args, scope)?;
    let text = |name: &str| args.get(name).and_then(Value::as_str);
    let folders = [run.job.task.folder.as_str(), scope.playbook_folder()];
    let mut values = Map::new();
    let mut read = Vec::new();
    for file in staged::variable_files(&*run.services.loader, &args, &folders)
        .map_err(|reason| Trouble::Result(result::failed(reason)))?
    {
        let entries = crate::playbook::inventory::variables_file(&file, &*run.services.loader)?;
        let layer: Layer = Arc::new(entries.into_iter().collect());
        let inner = scope.clone().with(Level::IncludeVars, Arc::clone(&layer));
        for (name, variable) in layer.iter() {
            let value = match variable {
                Variable::Written(node) => run.render(node, &inner)?,
                Variable::Found(value) => value.clone(),
            };
            values.insert(name.clone(), value);
        }
        read.push(run.services.loader.absolute(&file));
    }
    if let Some(name) = text("name") {
        values = Map::from_iter([(name.to_owned(), Value::Object(values))]);
    }
    Ok(result::object(json!({
        "ansible_facts": values,
        "ansible_included_var_files": read,
        "changed": false,
    })))
}

async fn pause(run: &Run<'_>, args: &Args, scope: &Scope) -> Result<Object, Trouble> {
    let args = arguments(run, "pause", args, scope)?;
    let number = |name: &str| args.get(name).and_then(keyword::float);
    let wait = number("seconds")
        .or_else(|| number("minutes").map(|minutes| minutes * 60.0))
        .unwrap_or(0.0);
    sleep(seconds(wait)).await;
    Ok(result::object(json!({
        "changed": false,
        "delta": wait,
        "echo": true,
        "rc": 0,
        "stderr": "",
        "stdout": format!("Paused for {wait:?} seconds"),
        "user_input": "",
    })))
}

fn add_host(run: &mut Run<'_>, args: &Args, scope: &Scope) -> Result<Object, Trouble> {
    let mut vars = arguments(run, "add_host", args, scope)?;
    let name = match vars.remove("name") {
        Some(Value::String(name)) => name,
        other => {
            return Err(Trouble::Result(result::failed(format!(
                "`add_host` takes a name, found {}",
                kind_of(&other.unwrap_or(Value::Null))
            ))));
        }
    };
    let groups = vars
        .remove("groups")
        .map_or_else(Vec::new, |groups| keyword::names(&groups));
    let done = result::object(json!({
        "add_host": {"groups": groups, "host_name": name, "host_vars": vars},
        "changed": true,
    }));
    run.effects.push(Effect::AddHost { name, groups, vars });
    Ok(done)
}

fn group_by(run: &mut Run<'_>, args: &Args, scope: &Scope) -> Result<Object, Trouble> {
    let args = arguments(run, "group_by", args, scope)?;
    let key = args.get("key").and_then(Value::as_str).unwrap_or_default();
    // As Ansible names groups: no spaces.
    let key = key.replace(' ', "-");
    let parents = args.get("parents").map_or_else(Vec::new, keyword::names);
    let done = json!({"add_group": key, "changed": true, "parent_groups": parents});
    run.effects.push(Effect::GroupBy { key, parents });
    Ok(result::object(done))
}

/// Renders a module's arguments and brings them into their types.
pub(super) fn arguments(
    run: &Run<'_>,
    module: &str,
    args: &Args,
    scope: &Scope,
) -> Result<Object, Trouble> {
    let spec = spec(module)?;
    let folders = [run.job.task.folder.as_str()];
    let renderer = run.services.renderer.in_folders(&folders);
    let mut rendered = renderer.vars(&args.named, scope)?;
    if let (Some(node), Some(name)) = (&args.free_form, spec.free_form) {
        rendered.insert(name.to_owned(), run.render(node, scope)?);
    }
    kind::coerce(spec, &rendered).map_err(|problems| {
        let messages: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Trouble::Result(result::failed(messages.join("; ")))
    })
}

fn spec(module: &str) -> Result<&'static ModuleSpec, Trouble> {
    kind::lookup(module)
        .ok_or_else(|| Trouble::Result(result::failed(format!("there is no module `{module}`"))))
}

async fn module_call(run: &mut Run<'_>, module: &Module, scope: &Scope) -> Result<Object, Trouble> {
    let spec = spec(&module.name)?;
    let args = arguments(run, &module.name, &module.args, scope)?;
    let call = Call::new(run, scope)?;
    if call.check && !spec.supports_check {
        return Ok(result::object(json!({
            "changed": false,
            "msg": format!("remote module ({}) does not support check mode", spec.name),
            "skipped": true,
        })));
    }
    if spec.runs == Runs::Lab {
        return lab_call(run, &call, spec.name, args).await;
    }
    if let Some(done) = staged::perform(run, &call, spec.name, &args, scope).await? {
        return Ok(done);
    }
    call.send(run, spec.name, args, Vec::new()).await
}

async fn lab_call(
    run: &mut Run<'_>,
    call: &Call,
    module: &str,
    args: Object,
) -> Result<Object, Trouble> {
    let Some(lab) = run.services.hosts.lab() else {
        return Err(Trouble::Result(result::failed(format!(
            "`{module}` acts on the lab's machines, and this run has an inventory of its own (-i)"
        ))));
    };
    let answer = lab.run(call.request(module, args), Vec::new()).await;
    run.effects.push(Effect::LabChanged);
    answer
        .map(|reply| reply.result)
        .map_err(|error| Trouble::Result(unreachable(run, &error)))
}

/// How a task's modules reach the host that does the work.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) check: bool,
    pub(super) diff: bool,
    /// The host that does the work.
    pub(super) host: String,
    connection: Connection,
    become_user: Option<String>,
    environment: Object,
    deadline: Duration,
    /// The playbook said how long the task may take: then it fails, else the host is lost.
    timeout: Option<u64>,
}

impl Call {
    fn new(run: &Run<'_>, scope: &Scope) -> Result<Self, Trouble> {
        let flags = &run.services.flags;
        let settings = &run.job.task.inherited;
        let host = run
            .label
            .delegate
            .clone()
            .unwrap_or_else(|| run.job.host.clone());
        let becomes = run
            .boolean(settings.r#become.as_ref(), scope)
            .unwrap_or(flags.r#become);
        let become_user = match &settings.become_user {
            Some(node) => run.render(node, scope)?.as_str().map(str::to_owned),
            None => flags.become_user.clone(),
        };
        let become_user = becomes.then(|| become_user.unwrap_or_else(|| "root".to_owned()));
        let mut connection = host_connection(run, &host, scope)?;
        connection.privileged = becomes;
        let timeout = match &settings.timeout {
            Some(setting) => run.setting(setting, scope, keyword::integer)?,
            None => 0,
        };
        let timeout = u64::try_from(timeout).ok().filter(|seconds| *seconds > 0);
        Ok(Self {
            check: run
                .boolean(settings.check_mode.as_ref(), scope)
                .unwrap_or(flags.check),
            diff: run
                .boolean(settings.diff.as_ref(), scope)
                .unwrap_or(flags.diff),
            host,
            connection,
            become_user: become_user.filter(|user| user != "root"),
            environment: environment(run, scope)?,
            deadline: timeout
                .map(Duration::from_secs)
                .or(flags.deadline)
                .unwrap_or(DEADLINE),
            timeout,
        })
    }

    fn request(&self, module: &str, args: Object) -> TaskRequest {
        TaskRequest {
            id: 0,
            module: module.to_owned(),
            args,
            check: self.check,
            diff: self.diff,
            environment: self.environment.clone(),
            become_user: self.become_user.clone(),
            timeout_ms: self.timeout.map(|seconds| seconds.saturating_mul(1000)),
        }
    }

    /// Has the host run a module.
    pub(super) async fn send(
        &self,
        run: &Run<'_>,
        module: &str,
        args: Object,
        body: Vec<u8>,
    ) -> Result<Object, Trouble> {
        let remote = run
            .services
            .hosts
            .remote(&self.host, &self.connection)
            .map_err(|reason| Trouble::Result(result::unreachable(reason)))?;
        // A student's machine on a busy host gets its points a little later rather than none.
        let retries = if run.services.flags.grading.is_some() {
            GRADING_CONNECT_RETRIES
        } else {
            0
        };
        let request = self.request(module, args);
        let mut answer = timeout(self.deadline, remote.run(request.clone(), body.clone())).await;
        for _ in 0..retries {
            if !matches!(answer, Ok(Err(RemoteError::Connect { .. }))) {
                break;
            }
            answer = timeout(self.deadline, remote.run(request.clone(), body.clone())).await;
        }
        match answer {
            Ok(Ok(reply)) => Ok(reply.result),
            Ok(Err(error)) => Err(Trouble::Result(unreachable(run, &error))),
            Err(_) => Err(Trouble::Result(self.too_late(run))),
        }
    }

    fn too_late(&self, run: &Run<'_>) -> Object {
        let seconds = self.deadline.as_secs();
        if self.timeout.is_some() {
            return result::failed(format!(
                "the task `{}` did not end within its timeout of {seconds} s and was stopped",
                run.job.name
            ));
        }
        let error = RemoteError::Deadline {
            host: self.host.clone(),
            seconds,
        };
        unreachable(run, &error)
    }
}

fn unreachable(run: &Run<'_>, error: &RemoteError) -> Object {
    result::unreachable(match error {
        RemoteError::Connect { .. } => error.to_string(),
        _ => format!("{error}; the task was `{}`", run.job.name),
    })
}

fn environment(run: &Run<'_>, scope: &Scope) -> Result<Object, Diagnostic> {
    let mut all = Object::new();
    for node in &run.job.task.inherited.environment {
        if let Value::Object(values) = run.render(node, scope)? {
            all.extend(values);
        }
    }
    Ok(all)
}

/// Reads how a host is reached: its own variables, the task's and the play's keywords, the
/// command line.
fn host_connection(run: &Run<'_>, host: &str, scope: &Scope) -> Result<Connection, Trouble> {
    let own = match &run.label.delegate {
        Some(_) => scope.of_host(host),
        None => Some(scope.clone()),
    };
    let mut found = Connection::default();
    let refuse = |reason: String| Trouble::Result(result::failed(reason));
    if let Some(own) = own {
        for variable in connection::VARIABLES {
            let value = match own.get(variable) {
                None => continue,
                Some(Variable::Found(value)) => value.clone(),
                Some(Variable::Written(node)) => run.render(node, &own)?,
            };
            found.set(variable, &value).map_err(refuse)?;
        }
    } else if ["localhost", "127.0.0.1", "::1"].contains(&host) {
        found.kind = Some("local".to_owned());
    }
    let task = &run.job.task;
    let keywords = [
        ("connection", task.connection.as_ref()),
        ("remote_user", task.remote_user.as_ref()),
    ];
    let own_keywords = keywords
        .into_iter()
        .filter_map(|(name, node)| node.map(|node| (name, node)));
    let play_keywords = run
        .job
        .play_keywords
        .iter()
        .map(|(name, node)| (*name, node));
    for (name, node) in own_keywords.chain(play_keywords) {
        let value = run.render(node, scope)?;
        found.set(name, &value).map_err(refuse)?;
    }
    let typed = &run.services.flags.connection;
    found.kind = found.kind.or_else(|| typed.kind.clone());
    found.user = found.user.or_else(|| typed.user.clone());
    found.key_file = found.key_file.or_else(|| typed.key_file.clone());
    Ok(found)
}
