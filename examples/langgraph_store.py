"""A LangGraph agent that remembers its users across threads: `pip install "memspan[langgraph]"`; no key, no network."""

from langchain_core.language_models import FakeListChatModel
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.store.base import BaseStore

from memspan import Memory
from memspan.integrations.langgraph import MemspanStore

model = FakeListChatModel(responses=["Noted.", "You drink green tea."])  # any chat model


def answer(state: MessagesState, *, store: BaseStore) -> dict[str, list[object]]:
    question = str(state["messages"][-1].content)
    recalled = store.search(("users", "ana"), query=question, limit=3)
    print("recalled:", [item.value["text"] for item in recalled])
    store.put(("users", "ana"), f"said {len(store.search(('users', 'ana')))}", {"text": question})
    known = "\n".join(item.value["text"] for item in recalled)
    return {"messages": [model.invoke(f"What you know of the user:\n{known}\n\n{question}")]}


with Memory(":memory:") as memory:  # a directory keeps it
    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    graph = builder.compile(store=MemspanStore(memory))
    for said in ("My name is Ana and I drink green tea.", "What tea do I drink?"):
        print("user:", said)
        print("model:", graph.invoke({"messages": [("user", said)]})["messages"][-1].content)
