"""How tools and their calls are written into a conversation.

Sources: the default formatter of MindSpeed-LLM 2.1.0, the chat template of Qwen3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_REACT_USAGE = """Use the following format if using a tool:
```
Action: tool name (one of [{names}]).
Action Input: the input to the tool, in a JSON format representing the kwargs (e.g. ```{{"input": "hello world", "num_beams": 5}}```).
```
"""

_QWEN3_HEAD = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
"""
_QWEN3_TAIL = """
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""


def describe_tools(text: Any, style: str | None) -> str | None:
    """The tools of a record (JSON text) as they follow the system text; None: they can not be told."""
    try:
        tools = json.loads(text)
        if style == "react":
            return _react(tools) if tools else ""
        if style == "qwen3":
            return _QWEN3_HEAD + "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools) + _QWEN3_TAIL if tools else ""
    except (TypeError, ValueError, KeyError, AttributeError):  # whatever is not a list of described functions
        return None
    return None


def function_call(content: str) -> tuple[str, str] | None:
    """Name and arguments (JSON text) of a call; None: the text is no call."""
    try:
        call = json.loads(content)
        name, arguments = call["name"], json.dumps(call["arguments"], ensure_ascii=False)
    except (TypeError, ValueError, KeyError):
        return None
    return (name, arguments) if isinstance(name, str) else None


def _react(tools: Sequence[Mapping[str, Any]]) -> str:
    lines = ["You have access to the following tools:\n"]
    for tool in tools:
        lines.append(f"> Tool Name: {tool['name']}\nTool Description: {tool.get('description', '')}\nTool Args:\n")
        required = tool["parameters"].get("required", [])
        lines += [_argument(name, spec, name in required) for name, spec in tool["parameters"]["properties"].items()]
        lines.append("\n")
    return "".join(lines) + _REACT_USAGE.format(names=", ".join(tool["name"] for tool in tools))


def _argument(name: str, spec: Mapping[str, Any], required: bool) -> str:
    text = f"  - {name} ({spec.get('type', '')}{', required' if required else ''}): {spec.get('description', '')}"
    if spec.get("enum"):
        text += f", should be one of [{', '.join(spec['enum'])}]"
    if spec.get("items"):
        text += f", where each item should be {spec['items'].get('type', '')}"
    return text + "\n"
