"""An ordinary FastMCP server that offers what the conformance suite calls. It knows nothing about Behalf.

    fastmcp_server.py PORT [--stateless]

It is no reference: some scenarios fail against FastMCP by themselves. What is looked at is whether the sidecar in front
of it changes anything.
"""

import asyncio
import sys
from typing import Annotated

from fastmcp import Context, FastMCP
from fastmcp.prompts import Message
from fastmcp.utilities.types import Audio, Image
from mcp_types import EmbeddedResource, ImageContent, TextContent, TextResourceContents
from pydantic import BaseModel, Field

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="

mcp = FastMCP("conformance-fastmcp")


class User(BaseModel):
    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


def embedded(uri: str, text: str, kind: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=kind, text=text))


@mcp.tool
def test_simple_text() -> str:
    """Text."""
    return "This is a simple text response for testing."


@mcp.tool
def test_image_content() -> ImageContent:
    """An image."""
    return ImageContent(type="image", data=PNG, mime_type="image/png")


@mcp.tool
def test_audio_content() -> Audio:
    """Sound."""
    import base64

    return Audio(data=base64.b64decode(WAV), format="wav")


@mcp.tool
def test_embedded_resource() -> EmbeddedResource:
    """A resource within the answer."""
    return embedded("test://embedded-resource", "This is an embedded resource content.")


@mcp.tool
def test_multiple_content_types() -> list:
    """Text, an image and a resource."""
    return [
        TextContent(type="text", text="Multiple content types test:"),
        ImageContent(type="image", data=PNG, mime_type="image/png"),
        embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json"),
    ]


@mcp.tool
async def test_tool_with_logging(ctx: Context) -> str:
    """Logs while it works."""
    for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.info(text)
        await asyncio.sleep(0.05)
    return "Tool with logging executed successfully"


@mcp.tool
async def test_tool_with_progress(ctx: Context) -> str:
    """Tells how far it is."""
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100, f"Completed step {done} of 100")
        await asyncio.sleep(0.05)
    return "0"


@mcp.tool
def test_error_handling() -> str:
    """Fails."""
    raise ValueError("This tool intentionally returns an error for testing")


@mcp.tool
async def test_sampling(prompt: str, ctx: Context) -> str:
    """Asks the client's model."""
    answer = await ctx.sample(prompt, max_tokens=100)
    return f"LLM response: {answer.text}"


@mcp.tool
async def test_elicitation(message: str, ctx: Context) -> str:
    """Asks the person."""
    answer = await ctx.elicit(message, response_type=User)
    return f"User response: action={answer.action}"


@mcp.tool
async def test_x_mcp_header(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "") -> str:
    """Takes an argument that a header mirrors."""
    return f"region: {region}"


@mcp.resource("test://static-text", mime_type="text/plain")
def static_text() -> str:
    return "This is the content of the static text resource."


@mcp.resource("test://static-binary", mime_type="image/png")
def static_binary() -> bytes:
    import base64

    return base64.b64decode(PNG)


@mcp.resource("test://watched-resource", mime_type="text/plain")
def watched() -> str:
    return "Watched resource content"


@mcp.resource("test://template/{id}/data", mime_type="application/json")
def template(id: str) -> str:
    return f'{{"id":"{id}","templateTest":true,"data":"Data for ID: {id}"}}'


@mcp.prompt
def test_simple_prompt() -> str:
    """A prompt."""
    return "This is a simple prompt for testing."


@mcp.prompt
def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    """A prompt with arguments."""
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@mcp.prompt
def test_prompt_with_embedded_resource(resourceUri: str) -> list:
    """A prompt with a resource."""
    return [Message(embedded(resourceUri, "Embedded resource content for testing.")), Message("Please process the embedded resource above.")]


@mcp.prompt
def test_prompt_with_image() -> list:
    """A prompt with an image."""
    return [Message(ImageContent(type="image", data=PNG, mime_type="image/png")), Message("Please analyze the image above.")]


if __name__ == "__main__":
    mcp.run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), path="/mcp", stateless_http="--stateless" in sys.argv,
            show_banner=False, log_level="warning")
