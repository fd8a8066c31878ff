"""tasks/pretrain"""
