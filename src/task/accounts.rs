//! The users and groups of a host, as `/etc/passwd` and `/etc/group` list them.
//!
//! Read directly: the agent is static and has no name service to ask.

/// One line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub comment: String,
    pub home: String,
    pub shell: String,
}

/// One line of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub gid: u32,
    pub members: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    pub users: Vec<User>,
    pub groups: Vec<Group>,
}

impl Accounts {
    /// Reads both files; lines that are broken are left out, as the C library does.
    pub fn parse(passwd: &str, group: &str) -> Self {
        Self {
            users: passwd.lines().filter_map(parse_user).collect(),
            groups: group.lines().filter_map(parse_group).collect(),
        }
    }

    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// Returns the number behind a user's name or a number as text.
    pub fn uid(&self, name_or_number: &str) -> Option<u32> {
        let by_name = self.user(name_or_number).map(|user| user.uid);
        by_name.or_else(|| name_or_number.parse().ok())
    }

    pub fn gid(&self, name_or_number: &str) -> Option<u32> {
        let by_name = self.group(name_or_number).map(|group| group.gid);
        by_name.or_else(|| name_or_number.parse().ok())
    }

    /// Returns the name behind a number, or the number itself.
    pub fn user_name(&self, uid: u32) -> String {
        let user = self.users.iter().find(|user| user.uid == uid);
        user.map_or_else(|| uid.to_string(), |user| user.name.clone())
    }

    pub fn group_name(&self, gid: u32) -> String {
        let group = self.groups.iter().find(|group| group.gid == gid);
        group.map_or_else(|| gid.to_string(), |group| group.name.clone())
    }

    /// Returns the groups that list this user as a member, without the user's own.
    pub fn groups_of(&self, name: &str) -> Vec<&Group> {
        let lists = |group: &&Group| group.members.iter().any(|member| member == name);
        self.groups.iter().filter(lists).collect()
    }
}

fn parse_user(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, comment, home, shell] = fields[..] else {
        return None;
    };
    Some(User {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        comment: comment.to_owned(),
        home: home.to_owned(),
        shell: shell.to_owned(),
    })
}

fn parse_group(line: &str) -> Option<Group> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members] = fields[..] else {
        return None;
    };
    let members = members.split(',').filter(|member| !member.is_empty());
    Some(Group {
        name: name.to_owned(),
        gid: gid.parse().ok()?,
        members: members.map(str::to_owned).collect(),
    })
}

#[cfg(test)]
pub(super) fn example() -> Accounts {
    Accounts::parse(
        "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000:Ann,,,:/home/ann:/bin/sh\nbroken:x\n",
        "root:x:0:\nann:x:1000:\nsudo:x:27:ann,bob\nadm:x:4:ann\n",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_to_each_other() {
        let accounts = example();
        assert_eq!(accounts.uid("ann"), Some(1000));
        assert_eq!(accounts.uid("1234"), Some(1234));
        assert_eq!(accounts.uid("nobody"), None);
        assert_eq!(accounts.user_name(1000), "ann");
        assert_eq!(accounts.group_name(99), "99");
        let groups = accounts.groups_of("ann");
        let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names, ["sudo", "adm"]);
    }
}
