//! Who is in a group.

use kafka_protocol::messages::{
    ApiKey, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, GroupId,
};
use kafka_protocol::protocol::StrBytes;

use super::metadata::address;
use super::shape::Shape;
use super::{Wire, refused};
use crate::client::{Fault, Member, Resource};

/// Kafka 0.9 to 4.x serve one of these; later versions are of the flexible form.
const FIND_COORDINATOR: (i16, i16) = (0, 2);
/// The same.
const DESCRIBE_GROUPS: (i16, i16) = (0, 4);
/// Of groups of the new protocol (KIP-848); from Kafka 3.7 on, where that protocol is on.
const CONSUMER_GROUP_DESCRIBE: (i16, i16) = (0, 0);
/// GROUP_ID_NOT_FOUND: it is a group of the other protocol, or there is none of the name.
const NOT_FOUND: i16 = 69;
/// UNSUPPORTED_VERSION: it serves the question, and that protocol is off there.
const UNSUPPORTED: i16 = 35;

impl Wire {
    /// `host:port` of the broker that coordinates the group.
    ///
    /// # Errors
    /// The broker did not answer; [`Fault::Refused`] with Kafka's reason, for instance
    /// `CoordinatorNotAvailable`.
    pub fn coordinator(&mut self, group: &str) -> Result<String, Fault> {
        let version = self.choose(ApiKey::FindCoordinator, FIND_COORDINATOR, "FindCoordinator 0")?;
        let request = FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned()));
        // throttle time (from 1 on), error, message (from 1 on), node, host, port
        let shape: &[Shape] = match version {
            0 => &[Shape::Fixed(6), Shape::Text, Shape::Fixed(4)],
            _ => &[Shape::Fixed(6), Shape::Text, Shape::Fixed(4), Shape::Text, Shape::Fixed(4)],
        };
        let answer: FindCoordinatorResponse =
            self.call("FindCoordinator", ApiKey::FindCoordinator, version, &request, shape)?;
        match answer.error_code {
            0 => Ok(address(&answer.host, answer.port)),
            code => Err(refused(&self.who, "FindCoordinator", Resource::Group(group.to_owned()), code)),
        }
    }

    /// The live members of a group, be it of the classic protocol or the new one (KIP-848). Only its
    /// coordinator knows them.
    ///
    /// # Errors
    /// The broker did not answer; [`Fault::Refused`] with Kafka's reason, for instance
    /// `NotCoordinator`.
    pub fn members(&mut self, group: &str) -> Result<Vec<Member>, Fault> {
        // A group of the new protocol is to the classic question one that does not exist (state Dead): without members,
        // and without an error before version 6.
        let members = self.classic_members(group)?;
        if members.is_empty() && self.versions_of(ApiKey::ConsumerGroupDescribe).is_some() {
            return self.new_members(group);
        }
        Ok(members)
    }

    fn classic_members(&mut self, group: &str) -> Result<Vec<Member>, Fault> {
        const CALL: &str = "DescribeGroups";
        let version = self.choose(ApiKey::DescribeGroups, DESCRIBE_GROUPS, "DescribeGroups 0")?;
        let request = DescribeGroupsRequest::default().with_groups(vec![name(group)]);
        let from = |first: i16, size: usize| Shape::Fixed(if version >= first { size } else { 0 });
        let bytes = || Shape::Array(vec![Shape::Fixed(1)]);
        // throttle time (from 1 on); error, group, state, protocol type, protocol; members: id, instance (from 4 on),
        // client id, host, metadata, assignment; authorized operations (from 3 on)
        let mut member = vec![Shape::Text, Shape::Text, Shape::Text, bytes(), bytes()];
        if version >= 4 {
            member.push(Shape::Text);
            member.rotate_right(1);
        }
        let text = || Shape::Text;
        let described = vec![Shape::Fixed(2), text(), text(), text(), text(), Shape::Array(member), from(3, 4)];
        let shape = [from(1, 4), Shape::Array(described)];
        let answer: DescribeGroupsResponse = self.call(CALL, ApiKey::DescribeGroups, version, &request, &shape)?;
        let Some(described) = answer.groups.into_iter().find(|described| described.group_id.0 == *group) else {
            return Err(self.lacks_group(CALL));
        };
        if described.error_code != 0 {
            return Err(refused(&self.who, CALL, Resource::Group(group.to_owned()), described.error_code));
        }
        let members = described.members.into_iter().map(|member| Member {
            id: member.member_id.to_string(),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
        });
        Ok(members.collect())
    }

    fn new_members(&mut self, group: &str) -> Result<Vec<Member>, Fault> {
        const CALL: &str = "ConsumerGroupDescribe";
        let version = self.choose(ApiKey::ConsumerGroupDescribe, CONSUMER_GROUP_DESCRIBE, "ConsumerGroupDescribe 0")?;
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![name(group)]);
        let text = || Shape::CompactText;
        let array = Shape::CompactArray;
        // topic partitions: id, name, partitions
        let assignment = || {
            let topic = vec![Shape::Fixed(16), text(), array(vec![Shape::Fixed(4)]), Shape::Tags];
            [array(topic), Shape::Tags]
        };
        // id, instance, rack, epoch, client id, host, topics, regular expression, assignment, target
        let member = [
            vec![text(), text(), text(), Shape::Fixed(4), text(), text(), array(vec![text()]), text()],
            assignment().to_vec(),
            assignment().to_vec(),
            vec![Shape::Tags],
        ];
        // throttle time; error, message, group, state, epochs of group and assignment, assignor, members,
        // authorized operations
        let described = vec![
            Shape::Fixed(2),
            text(),
            text(),
            text(),
            Shape::Fixed(8),
            text(),
            array(member.concat()),
            Shape::Fixed(4),
            Shape::Tags,
        ];
        let shape = [Shape::Fixed(4), array(described), Shape::Tags];
        let answer: ConsumerGroupDescribeResponse =
            self.call(CALL, ApiKey::ConsumerGroupDescribe, version, &request, &shape)?;
        let Some(described) = answer.groups.into_iter().find(|described| described.group_id.0 == *group) else {
            return Err(self.lacks_group(CALL));
        };
        match described.error_code {
            0 => {}
            NOT_FOUND | UNSUPPORTED => return Ok(Vec::new()),
            code => return Err(refused(&self.who, CALL, Resource::Group(group.to_owned()), code)),
        }
        let members = described.members.into_iter().map(|member| Member {
            id: member.member_id.to_string(),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
        });
        Ok(members.collect())
    }

    fn lacks_group(&self, call: &'static str) -> Fault {
        Fault::Broken { call, why: format!("the answer of broker {} lacks the group", self.broker()) }
    }
}

fn name(group: &str) -> GroupId {
    GroupId(StrBytes::from_string(group.to_owned()))
}
