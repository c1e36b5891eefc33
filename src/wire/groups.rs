//! Who is in a group.

use kafka_protocol::messages::{
    ApiKey, DescribeGroupsRequest, DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse, GroupId,
};
use kafka_protocol::protocol::StrBytes;

use super::metadata::address;
use super::shape::Shape;
use super::{Wire, refused};
use crate::client::{Fault, Member};

/// Kafka 0.9 to 4.x serve both.
const VERSION: i16 = 0;

impl Wire {
    /// `host:port` of the broker that coordinates the group.
    ///
    /// # Errors
    /// The broker did not answer; [`Fault::Refused`] with Kafka's reason, for instance
    /// `CoordinatorNotAvailable`.
    pub fn coordinator(&mut self, group: &str) -> Result<String, Fault> {
        self.require_version(ApiKey::FindCoordinator, VERSION, "FindCoordinator 0")?;
        let request = FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned()));
        // error, node, host, port
        let shape = [Shape::Fixed(6), Shape::Text, Shape::Fixed(4)];
        let answer: FindCoordinatorResponse =
            self.call("FindCoordinator", ApiKey::FindCoordinator, VERSION, &request, &shape)?;
        match answer.error_code {
            0 => Ok(address(&answer.host, answer.port)),
            code => Err(refused("FindCoordinator", format!("group {group}"), code)),
        }
    }

    /// The live members of a group. Only its coordinator knows them.
    ///
    /// # Errors
    /// The broker did not answer; [`Fault::Refused`] with Kafka's reason, for instance
    /// `NotCoordinator`.
    pub fn members(&mut self, group: &str) -> Result<Vec<Member>, Fault> {
        const CALL: &str = "DescribeGroups";
        self.require_version(ApiKey::DescribeGroups, VERSION, "DescribeGroups 0")?;
        let name = GroupId(StrBytes::from_string(group.to_owned()));
        let request = DescribeGroupsRequest::default().with_groups(vec![name]);
        let bytes = || Shape::Array(vec![Shape::Fixed(1)]);
        // error, group, state, protocol type, protocol; members: id, client id, host, metadata, assignment
        let member = vec![Shape::Text, Shape::Text, Shape::Text, bytes(), bytes()];
        let described = vec![Shape::Fixed(2), Shape::Text, Shape::Text, Shape::Text, Shape::Text, Shape::Array(member)];
        let answer: DescribeGroupsResponse =
            self.call(CALL, ApiKey::DescribeGroups, VERSION, &request, &[Shape::Array(described)])?;
        let Some(described) = answer.groups.into_iter().find(|described| described.group_id.0 == *group) else {
            let why = format!("the answer of broker {} lacks the group", self.broker());
            return Err(Fault::Broken { call: CALL, why });
        };
        if described.error_code != 0 {
            return Err(refused(CALL, format!("group {group}"), described.error_code));
        }
        let member = |member: kafka_protocol::messages::describe_groups_response::DescribedGroupMember| Member {
            id: member.member_id.to_string(),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
        };
        Ok(described.members.into_iter().map(member).collect())
    }
}
