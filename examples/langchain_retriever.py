"""A LangChain chain over a memory: `pip install "memspan[langchain]"`; no key, no network."""

from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from memspan import Memory
from memspan.integrations.langchain import MemspanRetriever, MemspanVectorStore

model = FakeListChatModel(responses=["She lives in Lisbon."])  # any chat model
prompt = ChatPromptTemplate.from_template("Answer from this alone:\n{context}\n\n{question}")

with Memory(":memory:") as memory:  # a directory keeps it
    memory.add([{"role": "user", "name": "Ana", "content": "I moved to Lisbon in May."}], user_id="ana")
    retriever = MemspanRetriever(memory=memory, k=3, user_id="ana")
    chain = {"context": retriever, "question": RunnablePassthrough()} | prompt | model | StrOutputParser()
    print("retrieved:", retriever.invoke("Where does Ana live?")[0].page_content)
    print("model:", chain.invoke("Where does Ana live?"))

    store = MemspanVectorStore(memory)
    store.add_documents([Document(id="trip", page_content="The train to Porto leaves at nine.", metadata={"day": 1})])
    print("document:", store.similarity_search("When is the train?", k=1, filter={"day": 1})[0])
