//! `user` and `group`: (wanted, accounts) → calls of the distribution's account tools.
//!
//! The tools, not the files: they know of locks, shadow, skeletons and subordinate ids.

use super::accounts::{Accounts, Group, User};
use super::args::Args;
use super::outcome::{Outcome, Refusal};

/// What has to be run, in order; nothing when all is as wanted.
pub type Commands = Vec<Vec<String>>;

/// What is known beside the accounts.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserFacts<'a> {
    /// The user's second field in `/etc/shadow`.
    pub password: Option<&'a str>,
    pub home_exists: bool,
}

pub fn plan_user(
    args: Args<'_>,
    accounts: &Accounts,
    facts: UserFacts<'_>,
) -> Result<Commands, Refusal> {
    let name = args.word("name");
    check_groups(args, accounts)?;
    match (args.word("state"), accounts.user(name)) {
        ("absent", None) => Ok(Vec::new()),
        ("absent", Some(_)) => Ok(vec![delete(args)]),
        (_, None) => Ok(create(args)),
        (_, Some(user)) => Ok(modify(args, accounts, user, facts)),
    }
}

fn check_groups(args: Args<'_>, accounts: &Accounts) -> Result<(), Refusal> {
    let groups = args.text("group").into_iter().chain(args.list("groups"));
    for group in groups {
        if accounts.group(group).is_none()
            && !accounts
                .groups
                .iter()
                .any(|known| known.gid.to_string() == group)
        {
            return Err(Refusal::new(format!("Group {group} does not exist")));
        }
    }
    Ok(())
}

fn delete(args: Args<'_>) -> Vec<String> {
    let mut command = vec!["userdel".to_owned()];
    if args.flag("force") {
        command.push("-f".to_owned());
    }
    if args.flag("remove") {
        command.push("-r".to_owned());
    }
    command.push(args.word("name").to_owned());
    command
}

fn create(args: Args<'_>) -> Commands {
    let mut command = vec!["useradd".to_owned()];
    let mut option = |option: &str, value: Option<String>| {
        if let Some(value) = value {
            command.extend([option.to_owned(), value]);
        }
    };
    option("-u", args.number("uid").map(|uid| uid.to_string()));
    option("-g", args.text("group").map(str::to_owned));
    option(
        "-G",
        args.has("groups")
            .then(|| args.list("groups").join(","))
            .filter(|groups| !groups.is_empty()),
    );
    option("-c", args.text("comment").map(str::to_owned));
    option("-d", args.text("home").map(str::to_owned));
    option("-s", args.text("shell").map(str::to_owned));
    option(
        "-p",
        args.text("password").map(|password| hashed(args, password)),
    );
    let creates_home = args.flag("create_home") && !args.flag("system");
    command.push(if creates_home { "-m" } else { "-M" }.to_owned());
    if args.flag("system") {
        command.push("-r".to_owned());
    }
    if args.flag("non_unique") {
        command.push("-o".to_owned());
    }
    command.push(args.word("name").to_owned());
    vec![command]
}

/// Returns the password's hash, with the mark of a locked one where wanted.
fn hashed(args: Args<'_>, password: &str) -> String {
    match args.flag_if_given("password_lock") {
        Some(true) if !password.starts_with('!') => format!("!{password}"),
        _ => password.to_owned(),
    }
}

fn modify(args: Args<'_>, accounts: &Accounts, user: &User, facts: UserFacts<'_>) -> Commands {
    let mut options: Vec<String> = Vec::new();
    let mut option = |option: &str, value: Option<String>| {
        if let Some(value) = value {
            options.extend([option.to_owned(), value]);
        }
    };
    let uid = args.number("uid").filter(|uid| *uid != i64::from(user.uid));
    option("-u", uid.map(|uid| uid.to_string()));
    let group = args
        .text("group")
        .filter(|group| accounts.gid(group) != Some(user.gid));
    option("-g", group.map(str::to_owned));
    option("-G", changed_groups(args, accounts, user));
    let differs = |name: &str, current: &str| {
        let wanted = args.text(name).filter(|wanted| *wanted != current);
        wanted.map(str::to_owned)
    };
    option("-c", differs("comment", &user.comment));
    option("-d", differs("home", &user.home));
    option("-s", differs("shell", &user.shell));
    option("-p", changed_password(args, facts.password));
    if options.iter().any(|option| option == "-d") && args.flag("move_home") {
        options.push("-m".to_owned());
    }
    if options.iter().any(|option| option == "-G") && args.flag("append") {
        options.push("-a".to_owned());
    }
    options.extend(changed_lock(args, facts.password).map(str::to_owned));
    let name = args.word("name").to_owned();
    let mut commands = Vec::new();
    if !options.is_empty() {
        let mut command = vec!["usermod".to_owned()];
        command.extend(options);
        command.push(name.clone());
        commands.push(command);
    }
    if args.flag("create_home") && !args.flag("system") && !facts.home_exists {
        commands.push(vec!["mkhomedir_helper".to_owned(), name]);
    }
    commands
}

/// Returns the groups for usermod when the user is not in just the wanted ones.
fn changed_groups(args: Args<'_>, accounts: &Accounts, user: &User) -> Option<String> {
    if !args.has("groups") {
        return None;
    }
    let wanted = args.list("groups");
    let current: Vec<&Group> = accounts.groups_of(&user.name);
    let is_in = |group: &str| {
        let gid = accounts.gid(group);
        gid == Some(user.gid) || current.iter().any(|held| Some(held.gid) == gid)
    };
    let missing: Vec<&str> = wanted
        .iter()
        .copied()
        .filter(|group| !is_in(group))
        .collect();
    if args.flag("append") {
        return (!missing.is_empty()).then(|| missing.join(","));
    }
    let has_more = current.iter().any(|held| {
        !wanted
            .iter()
            .any(|group| accounts.gid(group) == Some(held.gid))
    });
    (!missing.is_empty() || has_more).then(|| wanted.join(","))
}

fn changed_password(args: Args<'_>, current: Option<&str>) -> Option<String> {
    let wanted = args.text("password")?;
    let is_kept = args.word("update_password") == "on_create";
    let same = current
        .is_some_and(|current| current.trim_start_matches('!') == wanted.trim_start_matches('!'));
    (!is_kept && !same).then(|| hashed(args, wanted))
}

fn changed_lock(args: Args<'_>, current: Option<&str>) -> Option<&'static str> {
    let is_locked = current.is_some_and(|current| current.starts_with('!'));
    match args.flag_if_given("password_lock") {
        Some(true) if !is_locked => Some("-L"),
        Some(false) if is_locked => Some("-U"),
        _ => None,
    }
}

/// Returns the result of `user` with the account as it is afterwards.
pub fn user_outcome(args: Args<'_>, changed: bool, after: &Accounts) -> Outcome {
    let name = args.word("name");
    let outcome = Outcome::changed(changed)
        .with("name", name)
        .with("state", args.word("state"));
    match after.user(name) {
        Some(user) if args.word("state") == "present" => outcome
            .with("uid", user.uid)
            .with("group", user.gid)
            .with("comment", user.comment.as_str())
            .with("home", user.home.as_str())
            .with("shell", user.shell.as_str())
            .with("append", args.flag("append"))
            .with("move_home", args.flag("move_home")),
        _ => outcome,
    }
}

pub fn plan_group(args: Args<'_>, accounts: &Accounts) -> Commands {
    let name = args.word("name");
    let gid = args.number("gid");
    let command = match (args.word("state"), accounts.group(name)) {
        ("absent", Some(_)) => vec!["groupdel".to_owned()],
        ("present", None) => {
            let mut command = vec!["groupadd".to_owned()];
            if let Some(gid) = gid {
                command.extend(["-g".to_owned(), gid.to_string()]);
            }
            if args.flag("system") {
                command.push("-r".to_owned());
            }
            command
        }
        ("present", Some(group)) if gid.is_some_and(|gid| gid != i64::from(group.gid)) => {
            let gid = gid.map(|gid| gid.to_string()).unwrap_or_default();
            vec!["groupmod".to_owned(), "-g".to_owned(), gid]
        }
        _ => return Vec::new(),
    };
    let mut command = command;
    if args.flag("non_unique") {
        command.push("-o".to_owned());
    }
    command.push(name.to_owned());
    vec![command]
}

#[cfg(test)]
mod tests {
    use super::super::accounts::example;
    use super::super::kind::{coerce, lookup};
    use super::*;
    use serde_json::{Value, json};

    const FACTS: UserFacts<'_> = UserFacts {
        password: Some("!$6$x"),
        home_exists: true,
    };

    fn user(args: Value) -> Result<Vec<String>, Refusal> {
        let Value::Object(map) = args else {
            panic!("a mapping")
        };
        let args = coerce(lookup("user").expect("known"), &map).expect("valid");
        let commands = plan_user(Args(&args), &example(), FACTS)?;
        Ok(commands.iter().map(|command| command.join(" ")).collect())
    }

    #[test]
    fn a_new_user_is_made_with_what_was_told() {
        let made =
            user(json!({"name": "eve", "uid": 1500, "groups": "sudo,adm", "shell": "/bin/bash"}));
        assert_eq!(
            made.expect("valid"),
            ["useradd -u 1500 -G sudo,adm -s /bin/bash -m eve"]
        );
    }

    #[test]
    fn an_existing_user_is_changed_only_where_it_differs() {
        assert_eq!(
            user(json!({"name": "ann", "shell": "/bin/sh"})).expect("valid"),
            [""; 0]
        );
        assert_eq!(
            user(json!({"name": "ann", "uid": 7})).expect("valid"),
            ["usermod -u 7 ann"]
        );
        assert_eq!(
            user(json!({"name": "ann", "groups": "sudo,adm"})).expect("valid"),
            [""; 0]
        );
        assert_eq!(
            user(json!({"name": "ann", "groups": "sudo"})).expect("valid"),
            ["usermod -G sudo ann"]
        );
        assert_eq!(
            user(json!({"name": "ann", "groups": "sudo", "append": true})).expect("valid"),
            [""; 0]
        );
        assert_eq!(
            user(json!({"name": "ann", "groups": "root", "append": true})).expect("valid"),
            ["usermod -G root -a ann"]
        );
    }

    #[test]
    fn a_locked_password_is_still_the_same_password() {
        assert_eq!(
            user(json!({"name": "ann", "password": "$6$x"})).expect("valid"),
            [""; 0]
        );
        assert_eq!(
            user(json!({"name": "ann", "password": "$6$y"})).expect("valid"),
            ["usermod -p $6$y ann"]
        );
        assert_eq!(
            user(json!({"name": "ann", "password_lock": false})).expect("valid"),
            ["usermod -U ann"]
        );
    }

    #[test]
    fn absent_and_unknown_groups() {
        assert_eq!(
            user(json!({"name": "ann", "state": "absent", "remove": true})).expect("valid"),
            ["userdel -r ann"]
        );
        assert_eq!(
            user(json!({"name": "eve", "state": "absent"})).expect("valid"),
            [""; 0]
        );
        let error = user(json!({"name": "eve", "group": "no"})).expect_err("refused");
        assert_eq!(error.msg, "Group no does not exist");
    }
}
