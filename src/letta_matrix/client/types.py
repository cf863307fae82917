"""What the REST API answers: the types of the operations and tools that it passes on."""

from letta_matrix.operations import types as of_operations
from letta_matrix.operations.toolbox import history, reading, timeline, writing

Agent = of_operations.Agent
AgentDetails = of_operations.AgentDetails
Answer = of_operations.Answer
Approval = of_operations.Approval
NewToken = of_operations.NewToken
Token = of_operations.Token
Tool = of_operations.Tool
Turn = of_operations.Turn

Member = reading.Member
Message = timeline.Message
Messages = history.History
Room = reading.Room
Sent = writing.Sent
