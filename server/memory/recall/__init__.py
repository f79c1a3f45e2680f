"""Which memories belong beside a question: the profile, and the rest through a gate. Holds no texts.

Knows nothing of how memories are written.
"""
