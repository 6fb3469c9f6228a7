//! `package` and `apt`: (wanted, what dpkg knows) → calls of apt-get.

use std::collections::HashSet;

use super::args::Args;
use super::outcome::Refusal;

/// One wanted package: `name`, `name=version`, `name=1.2*`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish<'a> {
    name: &'a str,
    version: Option<&'a str>,
}

/// What dpkg knows: installed packages as (name, version).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed(Vec<(String, String)>);

/// What a task comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Calls of apt-get in order.
    pub commands: Vec<Vec<String>>,
    /// Packages that come or go.
    pub packages: Vec<String>,
    /// `latest` has to ask apt what it would do.
    pub asks_apt: bool,
}

impl Installed {
    /// Reads `dpkg-query -W -f '${db:Status-Status} ${binary:Package} ${Version} ${Provides}\n'`.
    /// What a package provides counts as installed too.
    pub fn parse(listing: &str) -> Self {
        let mut installed = Vec::new();
        for line in listing.lines() {
            let mut fields = line.splitn(4, ' ');
            let (Some("installed"), Some(name), Some(version)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let name = name.split(':').next().unwrap_or(name);
            installed.push((name.to_owned(), version.to_owned()));
            for provided in fields.next().unwrap_or("").split(',') {
                let provided = provided.split_whitespace().next().unwrap_or("");
                if !provided.is_empty() {
                    installed.push((provided.to_owned(), String::new()));
                }
            }
        }
        Self(installed)
    }

    fn has(&self, wish: &Wish<'_>) -> bool {
        let mut named = self.0.iter().filter(|(name, _)| name == wish.name);
        match wish.version {
            None => named.next().is_some(),
            Some(wanted) => named.any(|(_, version)| match wanted.strip_suffix('*') {
                Some(start) => version.starts_with(start),
                None => version == wanted,
            }),
        }
    }
}

pub fn plan(args: Args<'_>, installed: &Installed) -> Result<Plan, Refusal> {
    let mut plan = Plan {
        commands: Vec::new(),
        packages: Vec::new(),
        asks_apt: false,
    };
    if args.flag("update_cache") {
        plan.commands
            .push(vec!["apt-get".into(), "-q".into(), "update".into()]);
    }
    let mut seen = HashSet::new();
    let names = args
        .list("name")
        .into_iter()
        .filter(|name| seen.insert(*name));
    let wishes = names.map(wish).collect::<Result<Vec<_>, _>>()?;
    let state = args.word("state");
    let is_removal = matches!(state, "absent" | "removed");
    plan.asks_apt = state == "latest" && !wishes.is_empty();
    let concerned = wishes
        .iter()
        .filter(|wish| state == "latest" || installed.has(wish) == is_removal);
    plan.packages = concerned.map(Wish::as_apt).collect();
    if plan.packages.is_empty() {
        return Ok(plan);
    }
    let mut command: Vec<String> = ["apt-get", "-q", "-y"].map(str::to_owned).to_vec();
    command.extend(options(args, is_removal));
    command.push(if is_removal { "remove" } else { "install" }.to_owned());
    command.extend(plan.packages.iter().cloned());
    plan.commands.push(command);
    Ok(plan)
}

fn options(args: Args<'_>, is_removal: bool) -> Vec<String> {
    let mut options = Vec::new();
    if is_removal && args.flag("purge") {
        options.push("--purge");
    }
    if args.flag("autoremove") {
        options.push("--auto-remove");
    }
    match args.flag_if_given("install_recommends") {
        Some(true) => options.push("--install-recommends"),
        Some(false) => options.push("--no-install-recommends"),
        None => {}
    }
    let mut options: Vec<String> = options.into_iter().map(str::to_owned).collect();
    if !is_removal {
        options.push("-o=Dpkg::Options::=--force-confdef".to_owned());
        options.push("-o=Dpkg::Options::=--force-confold".to_owned());
    }
    if let Some(seconds) = args.number("lock_timeout") {
        options.push(format!("-o=DPkg::Lock::Timeout={seconds}"));
    }
    options
}

fn wish(text: &str) -> Result<Wish<'_>, Refusal> {
    let (name, version) = match text.split_once('=') {
        Some((name, version)) => (name.trim(), Some(version.trim())),
        None => (text.trim(), None),
    };
    let is_name = !name.is_empty() && !name.starts_with('-');
    let is_plain = name
        .chars()
        .all(|char| char.is_ascii_alphanumeric() || "+-.:".contains(char));
    if is_name && is_plain {
        Ok(Wish { name, version })
    } else {
        Err(Refusal::new(format!("`{text}` is not a package's name")))
    }
}

impl Wish<'_> {
    fn as_apt(&self) -> String {
        match self.version {
            Some(version) => format!("{}={version}", self.name),
            None => self.name.to_owned(),
        }
    }
}

/// Reads from `apt-get -s install …` whether it would change anything.
pub fn would_change(simulation: &str) -> bool {
    let acts = |line: &str| line.starts_with("Inst ") || line.starts_with("Remv ");
    simulation.lines().any(acts)
}

#[cfg(test)]
mod tests {
    use super::super::kind::{coerce, lookup};
    use super::*;
    use serde_json::{Value, json};

    fn planned(args: Value) -> Result<Plan, Refusal> {
        let Value::Object(map) = args else {
            panic!("a mapping")
        };
        let args = coerce(lookup("apt").expect("known"), &map).expect("valid");
        let installed = Installed::parse(
            "installed apache2 2.4.62-1 httpd, httpd-cgi\ninstalled libc6:amd64 2.41 \nconfig-files gone 1 \n",
        );
        plan(Args(&args), &installed)
    }

    #[test]
    fn installed_packages_need_nothing() {
        let plan = planned(json!({"name": ["apache2", "libc6", "httpd", "apache2=2.4.*"]}))
            .expect("valid");
        assert_eq!(plan.commands, Vec::<Vec<String>>::new());
    }

    #[test]
    fn what_is_missing_is_installed_in_one_go() {
        let plan = planned(json!({"name": "apache2,gone,nginx"})).expect("valid");
        assert_eq!(plan.packages, ["gone", "nginx"]);
        assert_eq!(plan.commands[0].last().map(String::as_str), Some("nginx"));
    }

    #[test]
    fn what_is_there_is_removed() {
        let plan = planned(json!({"name": ["apache2", "gone"], "state": "absent", "purge": true}))
            .expect("valid");
        assert_eq!(plan.packages, ["apache2"]);
        assert!(plan.commands[0].contains(&"--purge".to_owned()));
    }

    #[test]
    fn an_option_in_place_of_a_name_is_refused() {
        let error = planned(json!({"name": "-oAPT::x"})).expect_err("refused");
        assert_eq!(error.msg, "`-oAPT::x` is not a package's name");
    }
}
